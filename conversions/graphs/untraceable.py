"""What the libraries say of a configuration that they cannot build, as one clear error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from conversions.errors import ConversionError

_LONGEST = 300


@contextmanager
def naming_class(class_name: str) -> Iterator[None]:
    """Turn every exception out of a block into ``config.untraceable``, which names the class.

    Building and tracing a model runs code of torch, diffusers and transformers on values from config.json;
    they raise whatever comes (TypeError, AttributeError, AssertionError ...).

    Args:
        class_name: The component's class.

    Raises:
        ConversionError: As it was raised, or ``config.untraceable``.
    """
    try:
        yield
    except ConversionError:
        raise
    except MemoryError as error:
        raise ConversionError(
            "process.memory",
            f"A {class_name}, as the checkpoint's config.json describes it, does not fit into memory.",
            "Check the sizes in the config.json of this component.",
        ) from error
    except Exception as error:
        raise ConversionError(
            "config.untraceable",
            f"A {class_name} cannot be built as the checkpoint's config.json describes it: {_said(error)}.",
            "Check the config.json of this component, or download it again.",
        ) from error


def _said(error: Exception) -> str:
    """Return the first line with words in it, after the exception's name."""
    lines = [line.strip() for line in str(error).splitlines() if any(map(str.isalpha, line))]
    text = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    return text[:_LONGEST].rstrip(".: ")

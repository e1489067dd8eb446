"""Whatever a library raises at a configuration becomes one clear message."""

from __future__ import annotations

import pytest

from conversions.errors import ConversionError
from conversions.graphs.untraceable import naming_class


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (TypeError("unsupported operand"), "TypeError: unsupported operand."),
        (ValueError("\n===\n  Two words.  \nmore"), "ValueError: Two words."),
        (AssertionError(), "AssertionError."),
        (KeyError("...: "), "KeyError."),
        (RuntimeError("x" * 400), f"RuntimeError: {'x' * (300 - len('RuntimeError: '))}."),
    ],
)
def test_the_first_line_with_words_is_told(error: Exception, said: str) -> None:
    with pytest.raises(ConversionError) as caught, naming_class("UNet2DConditionModel"):
        raise error
    assert caught.value.code == "config.untraceable"
    assert caught.value.message == (
        "A UNet2DConditionModel cannot be built as the checkpoint's config.json describes it: " + said
    )
    assert "config.json" in caught.value.hint
    assert caught.value.__cause__ is error


def test_a_model_that_does_not_fit_into_memory_is_named() -> None:
    with (
        pytest.raises(ConversionError, match="A T5EncoderModel, as") as caught,
        naming_class("T5EncoderModel"),
    ):
        raise MemoryError
    assert caught.value.code == "process.memory"


def test_what_is_clear_already_stays_as_it_is_and_nothing_raised_is_nothing() -> None:
    own = ConversionError("weights.shape", "Another shape.")
    with pytest.raises(ConversionError) as caught, naming_class("T5EncoderModel"):
        raise own
    assert caught.value is own
    with naming_class("T5EncoderModel"):
        pass

"""An adapter that a person asks for: ``FILE`` or ``FILE:WEIGHT``."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

from conversions.errors import ConversionError

# A drive's letter is followed by a slash, a weight by nothing: C:\\x.safetensors has none, a:0.8 has one.
_WEIGHT = re.compile(r"(?P<file>.+):(?P<weight>[^:/\\]*)", re.DOTALL)

_LARGEST = (2 - 2**-23) * 2.0**127
"""The largest number of float32, in which weights are merged."""


@dataclass(frozen=True, kw_only=True)
class AdapterRequest:
    """An adapter and how much of it.

    Attributes:
        path: Its file.
        weight: What its change is multiplied by; 1 is as trained.
    """

    path: Path
    weight: float = 1.0


def parse_request(text: str) -> AdapterRequest:
    """Read ``FILE`` or ``FILE:WEIGHT``.

    A name that is a file's as it stands is taken whole, whatever colons it has.

    Raises:
        ConversionError: ``lora.weight``; the weight is no finite number.
    """
    found = _WEIGHT.fullmatch(text)
    if found is None or Path(text).is_file() or _is_drive(found["file"]):
        return AdapterRequest(path=Path(text))
    return AdapterRequest(path=Path(found["file"]), weight=parse_weight(found["file"], found["weight"]))


def parse_weight(file: str, text: str) -> float:
    """Read an adapter's weight.

    Args:
        file: What it belongs to, for the message.
        text: As it was typed.

    Raises:
        ConversionError: ``lora.weight``; it is no number, or none that float32 holds.
    """
    try:
        weight = float(text)
    except ValueError:
        weight = math.nan
    finite = math.isfinite(weight)
    if not finite or abs(weight) > _LARGEST:
        raise ConversionError(
            "lora.weight",
            f"The weight {text!r} of {file} is {'too large' if finite else 'no number'}.",
            f"Write it as {file}:0.8; without a weight it is 1.",
        )
    return weight


def _is_drive(text: str) -> bool:
    """Whether a text is the letter of a drive, as in ``C:lora.safetensors``."""
    return len(text) == 1 and text.isalpha()

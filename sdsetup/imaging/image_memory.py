"""Forecast an image's memory, and the largest image that fits this machine's GPU."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from conversions.forecast import Forecast, forecast, largest_square
from sdsetup.machine import adapters

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True, kw_only=True)
class ImageMemory:
    """A memory forecast, and the largest image that fits this machine's GPU.

    Attributes:
        forecast: Forecast for the requested image.
        card: Name of the GPU; empty when there is none with known memory.
        largest_side: Side of the largest square image that fits, in pixels; 0 when none does; None without
            a GPU.
    """

    forecast: Forecast
    card: str = ""
    largest_side: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {**self.forecast.as_dict(), "card": self.card, "largest_side": self.largest_side}


def image_memory(models: Mapping[str, ir.Model], *, width: int, height: int) -> ImageMemory:
    """Forecast an image's memory and compare it with the GPU that would generate it.

    Args:
        models: The submodels' graphs by name; weights may have no values.
        width: Of the image, in pixels.
        height: Of the image, in pixels.

    Raises:
        ConversionError: The size is one that a graph cannot take.
    """
    needed = forecast(models, width=width, height=height)
    try:
        chosen = adapters.choose(adapters.read())
    except OSError:  # the doctor reports it
        chosen = None
    if chosen is None or (usable := chosen[0].usable_bytes) is None:
        return ImageMemory(forecast=needed)
    return ImageMemory(forecast=needed, card=chosen[0].name, largest_side=largest_square(models, usable))

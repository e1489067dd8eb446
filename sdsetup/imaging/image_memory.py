"""Forecast an image's memory, and the largest image that fits this machine's GPU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from conversions.forecast import Forecast, forecast, largest_square
from conversions.package.layout import Package
from conversions.pipeline_graphs import PipelineGraphs, package_graphs
from conversions.providers.table import provider_for
from conversions.recipe import ImageSize
from sdsetup.machine import adapters


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


def image_memory(graphs: PipelineGraphs, size: ImageSize) -> ImageMemory:
    """Forecast an image's memory, and see what the card that would make it has.

    Args:
        graphs: The submodels' graphs; weights may have no values.
        size: Of the image.

    Raises:
        ConversionError: The size is one that a graph cannot take.
    """
    needed = forecast(graphs, size)
    try:
        chosen = adapters.choose(adapters.read())
    except OSError:  # the doctor reports it
        chosen = None
    if chosen is None or (usable := chosen[0].usable_bytes) is None:
        return ImageMemory(forecast=needed)
    return ImageMemory(forecast=needed, card=chosen[0].name, largest_side=largest_square(graphs, usable))


def package_memory(package: Package, provider: str, size: ImageSize) -> ImageMemory:
    """Forecast an image's memory where a package has run; after the CPU, on the target that it was made for.

    Args:
        package: Its graphs are read.
        provider: ONNX Runtime's name of the provider that ran it.
        size: Of the image.

    Raises:
        ConversionError: The size is one that a graph cannot take. ``package.torn``: a graph cannot be read.
            ``target.unknown``: there is no such provider.
    """
    graphs, ran_by = package_graphs(package), provider_for(provider)
    return image_memory(graphs if ran_by.target == "cpu" else graphs.run_by(ran_by), size)

"""What the submodels of a package need: disk, and memory of the device that runs them."""

from __future__ import annotations

from typing import Any

from conversions.forecast import forecast
from conversions.package.layout import Package
from conversions.pipeline_graphs import package_graphs


def memory_entry(package: Package) -> dict[str, Any]:
    """Return for the manifest the memory that a device needs for an image of the native size.

    Args:
        package: Its graphs are read.

    Returns:
        Width and height of the image in pixels, and for each submodel bytes of weights, of activations, and
        of both with its session: a forecast, see ``conversions.forecast``.
    """
    size = package.recipe.native
    return {
        "width": size.width,
        "height": size.height,
        "submodels": {
            need.submodel: {
                "weights_bytes": need.on_device.weights_bytes,
                "activation_bytes": need.on_device.activation_bytes,
                "device_bytes": need.total_bytes,
            }
            for need in forecast(package_graphs(package), size).needs
        },
    }


def weight_bytes(package: Package, submodel: str) -> int:
    """Return the size of a submodel's weights on the disk."""
    return sum(each.size_bytes for each in package.weight_files(submodel).values())


def device_bytes(package: Package, submodel: str) -> int | None:
    """Return the memory of a device that a submodel needs, as the manifest foretells; None if it does not."""
    needs = package.manifest.get("memory", {}).get("submodels", {}).get(submodel)
    return None if needs is None else int(needs["device_bytes"])

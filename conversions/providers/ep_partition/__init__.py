"""Predict where an execution provider would run every node of a graph, without the provider installed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import onnx_ir as ir

from conversions.errors import ConversionError
from conversions.providers.ep_partition.matching import find_kernel
from conversions.providers.ep_partition.partition import place_nodes
from conversions.providers.ep_partition.report import NodePlacement, Place, PlacementReport
from conversions.providers.kernels import load_table
from conversions.providers.table import provider_for
from conversions.shape_inference import fix_sizes

__all__ = [
    "NodePlacement",
    "Place",
    "PlacementReport",
    "check_package",
    "check_placement",
    "demand_kernels",
    "image_sizes",
    "package_graphs",
]


def check_placement(
    model: ir.Model, target: str, sizes: Mapping[str, int], *, submodel: str = ""
) -> PlacementReport:
    """Predict for every node of a graph whether a target runs it on the device, and if not, why.

    Args:
        model: The graph; its weights may have no data.
        target: A target with a kernel table, for example ``"directml"``.
        sizes: Size of every free dimension of the inputs.
        submodel: Name for the report.

    Returns:
        A report on the nodes that remain after fixing sizes and folding constants.

    Raises:
        ConversionError: The target has no kernel table, or a size is missing or invalid.
    """
    provider = provider_for(target)
    if not provider.kernel_table:
        raise ConversionError(
            "placement.no_table",
            f"There is no kernel table of {provider.label}: only a session shows where it runs a node.",
            f"Install {provider.package} and check the package there.",
        )
    table = load_table(provider.kernel_table)
    fixed = fix_sizes(model, sizes)
    opsets = dict(fixed.opset_imports)
    computed = 0
    for node in fixed.graph:
        kernel, _, _ = find_kernel(node, opsets, table)
        host = kernel.host_inputs if kernel else frozenset()
        values = [node.inputs[index] for index in host if index < len(node.inputs)]
        computed += sum(value is not None and not value.is_initializer() for value in values)
    return PlacementReport(
        submodel=submodel,
        target=target,
        sizes=dict(sizes),
        nodes=place_nodes(fixed, table),
        shape_nodes=sum(node.op_type in ("Shape", "Size") for node in fixed.graph),
        computed_shapes=computed,
    )


def check_package(
    package: Path, target: str, *, width: int = 512, height: int = 512, images: int = 1
) -> dict[str, PlacementReport]:
    """Check every submodel of a package at the sizes of one image.

    Args:
        package: Folder of the package.
        target: As in :func:`check_placement`.
        width: Of the image, in pixels.
        height: Of the image, in pixels.
        images: Batch size; guidance doubles it for the UNet.

    Returns:
        A report for every submodel, by name.

    Raises:
        ConversionError: As in :func:`check_placement`, or the folder holds no submodel.
    """
    reports = {}
    for name, model in package_graphs(package).items():
        sizes = image_sizes(model, width=width, height=height, images=images)
        reports[name] = check_placement(model, target, sizes, submodel=name)
    return reports


def package_graphs(package: Path) -> dict[str, ir.Model]:
    """Read the graphs of a package's submodels; weights stay on disk.

    Raises:
        ConversionError: The folder holds no submodel.
    """
    graphs = sorted(package.glob("*/model.onnx"))
    if not graphs:
        raise ConversionError("placement.no_package", f"'{package}' holds no submodels.")
    return {path.parent.name: ir.load(path) for path in graphs}


def image_sizes(model: ir.Model, *, width: int, height: int, images: int = 1) -> dict[str, int]:
    """Return the sizes of a submodel's free dimensions for one image.

    Latent inputs have 4 channels (or 9, for inpainting) and an eighth of the image's width and height; the
    UNet's batch is doubled for guidance.
    """
    names = {value.name: value for value in model.graph.inputs}
    latent = "sample" in names and "encoder_hidden_states" in names
    scale = 8 if latent or "latent_sample" in names else 1
    sizes = {
        "batch": images * (2 if latent else 1),
        "height": height // scale,
        "width": width // scale,
        "sequence": 77,
    }
    wanted = {
        dim.value
        for value in model.graph.inputs
        for dim in (value.shape or ())
        if isinstance(dim, ir.SymbolicDim)
    }
    return {name: size for name, size in sizes.items() if name in wanted}


def demand_kernels(report: PlacementReport) -> None:
    """Raise when a compute node does not run on the device.

    Raises:
        ConversionError: Names up to five of the nodes, each with its reason.
    """
    if not report.unfit:
        return
    shown = "; ".join(f"{node.node}: {node.reason}" for node in report.unfit[:5])
    more = f" and {len(report.unfit) - 5} more" if len(report.unfit) > 5 else ""
    raise ConversionError(
        "placement.no_kernel",
        f"{report.submodel or 'The graph'} has nodes that {report.target} cannot run: {shown}{more}.",
    )

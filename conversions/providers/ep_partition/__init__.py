"""Predict where an execution provider would run every node of a graph, without the provider installed."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from conversions.errors import ConversionError
from conversions.pipeline_graphs import PipelineGraphs
from conversions.providers.ep_partition.matching import find_kernel
from conversions.providers.ep_partition.partition import place_nodes
from conversions.providers.ep_partition.report import NodePlacement, Place, PlacementReport
from conversions.providers.kernels import load_table
from conversions.providers.table import provider_for
from conversions.recipe import ImageSize
from conversions.shape_inference import fix_sizes

__all__ = [
    "NodePlacement",
    "Place",
    "PlacementReport",
    "check_graphs",
    "check_placement",
    "demand_kernels",
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


def check_graphs(graphs: PipelineGraphs, target: str, size: ImageSize) -> dict[str, PlacementReport]:
    """Check every submodel at the sizes of one batch of images.

    Args:
        graphs: The submodels' graphs.
        target: As in :func:`check_placement`.
        size: Of the images.

    Returns:
        A report for every submodel, by name.

    Raises:
        ConversionError: As in :func:`check_placement`.
    """
    return {
        name: check_placement(model, target, graphs.sizes(name, size), submodel=name)
        for name, model in graphs.models.items()
    }


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

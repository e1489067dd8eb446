"""Give a graph the form that a target and a precision want."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from types import MappingProxyType

import onnx_ir as ir

from conversions.family import Submodel
from conversions.graph_kind import Config
from conversions.options import Options
from conversions.passes.quantize_weights import quantize_weights
from conversions.passes.to_fp16 import to_fp16
from conversions.passes.weights_as_stored import weights_as_stored
from conversions.providers.ep_partition import check_placement, demand_kernels
from conversions.providers.table import provider_for
from conversions.verification.fp16_overflow import OverflowingNode, find_norms, find_overflowing
from conversions.verification.linear_attention import find_linear_attention
from conversions.weights.quantize import BITS

IN_RANGE: Mapping[str, float] = MappingProxyType({})
"""Measured activations that all stay in float16's range."""


def adapt(
    model: ir.Model,
    submodel: Submodel,
    config: Config,
    options: Options,
    sizes: Mapping[str, int],
    ranges: Mapping[str, float] | None = IN_RANGE,
) -> tuple[OverflowingNode, ...]:
    """Give a graph the form that the target and the precision want, and check that the target can run it.

    Args:
        model: The graph, changed in place; its weights may have no values.
        submodel: What it is a graph of.
        config: The component's configuration.
        options: Name the target and the precision.
        sizes: Of the free dimensions, to look the target's kernels up at; they are the same at all sizes.
        ranges: Largest magnitudes that were measured, by value; empty where all stay in range. None where
            nothing is measured: on a target that keeps the variance of a norm in float16, norms then stay in
            float32 to be safe.

    Returns:
        The nodes that stay in float32, since they leave float16's range or may.

    Raises:
        ConversionError: ``placement.no_kernel``; the target has no kernel for a node.
    """
    model.graph.name = submodel.name
    provider = provider_for(options.target)
    for name in provider.passes:
        getattr(importlib.import_module(f"conversions.passes.{name}"), name)(model)
    kept: tuple[OverflowingNode, ...] = ()
    if options.is_fp16(submodel):
        if ranges is not None:
            kept = find_overflowing(model, ranges, fp16_variance=provider.fp16_variance)
        elif provider.fp16_variance:
            kept = find_norms(model)
        named = {each.node for each in kept}
        kept += tuple(each for each in find_linear_attention(model) if each.node not in named)
        fixed = {spec.name for spec in submodel.kind.inputs(config) if spec.dtype == "float32"}
        to_fp16(model, keep={each.node for each in kept}, fixed=fixed)
    weights_as_stored(model)
    if (precision := options.precision_of(submodel)) in BITS:
        quantize_weights(model, precision, submodel.kind.sensitive)
    if provider.kernel_table:
        demand_kernels(check_placement(model, options.target, sizes, submodel=submodel.name))
    return kept

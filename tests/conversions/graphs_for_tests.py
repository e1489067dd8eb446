"""Small graphs as the exporter writes them, and how to run them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

CHANNELS, GROUPS = 16, 4


def group_norm_graph(
    *,
    silu: bool = True,
    grouped: str = "0, 4, -1, 0",
    back: str = "0, 16, -1, 0",
    dtype: str = "float",
    views: bool = False,
) -> ir.Model:
    """A Conv, a group normalisation as instance normalisation over groups, a Conv; sizes are free.

    Args:
        silu: End in a SiLU.
        grouped: Shape that groups the channels.
        back: Shape that gives them back.
        dtype: Of all tensors.
        views: Keep the per-channel weights as vectors behind an Unsqueeze, instead of shaped to broadcast.
    """
    factor, summand = ("wu", "bu") if views else ("weight", "bias")
    unsqueezing = "wu = Unsqueeze(weight, axes) bu = Unsqueeze(bias, axes)" if views else ""
    ending = "s = Sigmoid(n) z = Mul(n, s)" if silu else "z = Identity(n)"
    text = f"""
    <ir_version: 10, opset_import: ["" : 18]>
    g ({dtype}[batch, 16, height, width] x) => ({dtype}[batch, 16, height, width] y)
    <int64[{grouped.count(",") + 1}] grouped = {{{grouped}}}, int64[{back.count(",") + 1}] back = {{{back}}},
     int64[2] axes = {{1, 2}}>
    {{
        a = Conv <pads = [1, 1, 1, 1]> (x, before)
        r = Reshape(a, grouped)
        i = InstanceNormalization <epsilon = 0.00001> (r, ones, zeros)
        b = Reshape(i, back)
        {unsqueezing}
        m = Mul(b, {factor})
        n = Add(m, {summand})
        {ending}
        y = Conv <pads = [1, 1, 1, 1]> (z, before)
    }}
    """
    proto = onnx.parser.parse_model(text)
    random = np.random.default_rng(7)
    element = np.float16 if dtype == "float16" else np.float32
    per_channel = (CHANNELS,) if views else (CHANNELS, 1, 1)
    weights = {
        "ones": np.ones(GROUPS),
        "zeros": np.zeros(GROUPS),
        "weight": random.normal(1.0, 0.3, per_channel),
        "bias": random.normal(0.0, 0.3, per_channel),
        "before": random.normal(0.0, 0.1, (CHANNELS, CHANNELS, 3, 3)),
    }
    for name, array in weights.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array.astype(element), name))
    return ir.from_proto(proto)


def image(element: Any = np.float32) -> np.ndarray[Any, Any]:
    return np.random.default_rng(3).normal(0.5, 2.0, (2, CHANNELS, 6, 10)).astype(element)


def readers(model: ir.Model) -> set[ir.Node]:
    """Return the nodes that read a graph's inputs and weights, those that were removed carelessly too."""
    values = (*model.graph.inputs, *model.graph.initializers.values())
    return {use.node for value in values for use in value.uses()}


def run_on_cpu(model: ir.Model, feeds: dict[str, np.ndarray[Any, Any]]) -> list[np.ndarray[Any, Any]]:
    session = onnxruntime.InferenceSession(
        ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return list(session.run(None, feeds))


def group_norm(x, gamma, beta, activation, channels_last, epsilon, groups):  # type: ignore[no-untyped-def]
    if channels_last:
        first = group_norm(x.transpose(0, 3, 1, 2), gamma, beta, activation, 0, epsilon, groups)
        return first.transpose(0, 2, 3, 1)
    parts = x.astype(np.float64).reshape(x.shape[0], groups, -1)
    normal = (parts - parts.mean(2, keepdims=True)) / np.sqrt(parts.var(2, keepdims=True) + epsilon)
    result = normal.reshape(x.shape) * gamma[:, None, None] + beta[:, None, None]
    if activation:
        result = result / (1 + np.exp(-result))
    return result.astype(x.dtype)


class GroupNorm(OpRun):
    """com.microsoft.GroupNorm, from its description in ContribOperators.md."""

    op_domain = "com.microsoft"

    def _run(self, x, gamma, beta, activation, channels_last, epsilon, groups):  # type: ignore[no-untyped-def]
        return (group_norm(x, gamma, beta, activation, channels_last, epsilon, groups),)


class SkipGroupNorm(OpRun):
    """com.microsoft.SkipGroupNorm, from its description in ContribOperators.md."""

    op_domain = "com.microsoft"

    def _run(  # type: ignore[no-untyped-def]
        self, x, gamma, beta, skip, bias, activation, channels_last, epsilon, groups
    ):
        if not channels_last:
            bias = bias[:, None, None]
        if skip.ndim == 2:
            skip = skip[:, None, None, :] if channels_last else skip[:, :, None, None]
        total = x + skip + bias
        norm = group_norm(total, gamma, beta, activation, channels_last, epsilon, groups)
        return (norm, total) if len(self.onnx_node.output) == 2 else (norm,)


class Gelu(OpRun):
    """com.microsoft.Gelu, from its description in ContribOperators.md."""

    op_domain = "com.microsoft"

    def _run(self, x, approximate=None):  # type: ignore[no-untyped-def]
        del approximate
        return ((0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))).astype(x.dtype),)


class BiasSplitGelu(OpRun):
    """com.microsoft.BiasSplitGelu, from its description in ContribOperators.md."""

    op_domain = "com.microsoft"

    def _run(self, x, bias):  # type: ignore[no-untyped-def]
        left, right = np.split((x + bias).astype(np.float64), 2, axis=-1)
        return ((left * 0.5 * right * (1 + np.vectorize(math.erf)(right / math.sqrt(2)))).astype(x.dtype),)


def run_by_definition(model: ir.Model, feeds: dict[str, np.ndarray[Any, Any]]) -> list[np.ndarray[Any, Any]]:
    return list(
        ReferenceEvaluator(ir.to_proto(model), new_ops=[BiasSplitGelu, Gelu, GroupNorm, SkipGroupNorm]).run(
            None, feeds
        )
    )


def psnr(expected: np.ndarray[Any, Any], got: np.ndarray[Any, Any]) -> float:
    error = np.mean((expected.astype(np.float64) - got.astype(np.float64)) ** 2)
    peak = float(np.max(expected) - np.min(expected))
    return float("inf") if error == 0 else 10 * float(np.log10(peak**2 / error))

"""Output shapes of ONNX Runtime's own operators, as far as models here use them.

Source: the operators' descriptions in ONNX Runtime's ContribOperators.md.
"""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

Shapes = list[ir.Shape | None]

IN_ONNX_DOMAIN = frozenset({"SimplifiedLayerNormalization"})
"""Those that ONNX Runtime registers in the domain of ONNX itself."""


def contrib_shapes(node: ir.Node) -> Shapes:
    """Return the shapes of a node's outputs; None for what is not known."""
    first = node.inputs[0] if node.inputs else None
    if first is None or first.shape is None:
        return []
    return _SHAPES.get(node.op_type, _unknown)(node, first.shape)


def _unknown(node: ir.Node, first: ir.Shape) -> Shapes:
    del node, first
    return []


def _like_first(node: ir.Node, first: ir.Shape) -> Shapes:
    del node
    return [first]


def _attention(node: ir.Node, query: ir.Shape) -> Shapes:
    """[batch, length, heads * size of a value]; packed and four-dimensional forms are left unknown."""
    value = node.inputs[2] if len(node.inputs) > 2 else None
    if value is None or value.shape is None or len(query) != 3 or len(value.shape) != 3:
        return []
    return [ir.Shape([query[0], query[1], value.shape[2]])]


def _skip_norm(node: ir.Node, first: ir.Shape) -> Shapes:
    del node
    statistics = ir.Shape([*first[:-1], 1])
    return [first, statistics, statistics, first]


def _halved(node: ir.Node, first: ir.Shape) -> Shapes:
    del node
    width = first[-1]
    return [ir.Shape([*first[:-1], width // 2])] if isinstance(width, int) else []


def _product(node: ir.Node, first: ir.Shape) -> Shapes:
    second = node.inputs[1]
    if second is None or second.shape is None or len(first) < 2 or len(second.shape) != 2:
        return []
    rows, columns = first[-2], second.shape[1]
    if node.attributes.get_int("transA", 0):
        rows = first[-1]
    if node.attributes.get_int("transB", 0):
        columns = second.shape[0]
    return [ir.Shape([*first[:-2], rows, columns])]


def _quantized_product(node: ir.Node, first: ir.Shape) -> Shapes:
    columns = node.attributes.get_int("N", 0)
    return [ir.Shape([*first[:-1], columns])] if columns else []


_SHAPES: dict[str, Callable[[ir.Node, ir.Shape], Shapes]] = {
    "BiasAdd": _like_first,
    "BiasGelu": _like_first,
    "BiasSplitGelu": _halved,
    "FastGelu": _like_first,
    "FusedMatMul": _product,
    "Gelu": _like_first,
    "GroupNorm": _like_first,
    "MatMulNBits": _quantized_product,
    "MultiHeadAttention": _attention,
    "QuickGelu": _like_first,
    "RotaryEmbedding": _like_first,
    "SimplifiedLayerNormalization": _like_first,
    "SkipLayerNormalization": _skip_norm,
    "SkipSimplifiedLayerNormalization": _skip_norm,
}

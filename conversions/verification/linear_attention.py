"""Linear attention, found in a graph: float16 holds neither its sums nor its epsilon."""

from __future__ import annotations

import math
from collections.abc import Iterator

import onnx_ir as ir

from conversions.verification.fp16_overflow import OverflowingNode

# What moves or selects numbers, or adds them up, between the last product and the division.
_SELECTS = frozenset(
    {"Add", "Cast", "Gather", "ReduceSum", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"}
)
_BETWEEN = _SELECTS | {"Concat", "Expand", "MatMul", "Mul", "Pad", "Relu"}


def find_linear_attention(model: ir.Model) -> tuple[OverflowingNode, ...]:
    """Choose the nodes of linear attention, from its Relu to its Div, which must stay in float32.

    It sums products over all tokens without a softmax and divides by a part of the result: the sums grow with
    the image, and the epsilon beside the divisor, 1e-15, is zero in float16.

    Rules:
        1. A Div counts whose dividend and divisor are selected from, or added up of, one and the same MatMul.
        2. With it stay all nodes on the ways back to Relus, through products and what only moves numbers.
        3. Where no such way ends in a Relu it is another kind of division, and nothing stays.

    Args:
        model: The graph before it was made float16.

    Source: SanaLinearAttnProcessor2_0 and SanaMultiscaleLinearAttention of diffusers 0.42, which compute this
    in float32 too.
    """
    names = {
        str(node.name): node
        for division in model.graph
        if division.op_type == "Div" and _divides_by_a_part(division)
        for node in _back_to_relus(division)
    }
    return tuple(
        OverflowingNode(
            node=str(node.name),
            layer=str(node.name),
            operator=node.op_type,
            largest=math.inf,
            reason="is part of linear attention, whose sums over all tokens float16 does not hold",
        )
        for node in model.graph
        if str(node.name) in names
    )


def _divides_by_a_part(division: ir.Node) -> bool:
    dividend, divisor = (set(_products(value)) for value in division.inputs)
    return bool(dividend & divisor)


def _products(value: ir.Value | None) -> Iterator[ir.Node]:
    """Give the MatMuls that a value is selected from."""
    node = None if value is None else value.producer()
    if node is not None and node.op_type == "MatMul":
        yield node
    elif node is not None and node.op_type in _SELECTS:
        for source in node.inputs:
            yield from _products(source)


def _back_to_relus(end: ir.Node) -> set[ir.Node]:
    """Give the nodes on all ways from a Relu to a node, both ends included."""
    reaches: dict[ir.Node, bool] = {}

    def visit(node: ir.Node) -> bool:
        if node not in reaches:
            sources = [value.producer() for value in node.inputs if value is not None]
            ways = [visit(source) for source in sources if source is not None and source.op_type in _BETWEEN]
            reaches[node] = node.op_type == "Relu" or any(ways)
        return reaches[node]

    visit(end)
    return {node for node, found in reaches.items() if found}

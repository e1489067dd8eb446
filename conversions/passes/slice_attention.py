"""Pass: attention in slices, for providers that store its scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

import numpy as np
import onnx_ir as ir

from conversions.passes.rewiring import NodeWriter, nodes_at, take_place
from conversions.shape_inference import attention_scores_shape, static_shape

DOMAIN = "com.microsoft"
LIMIT_BYTES = 256 * 1024**2
"""Scores of one slice; of Stable Diffusion 1.x at 512x512 one image's prompt, of the largest layer."""


def slice_attention(model: ir.Model, sizes: Mapping[str, int] | None, limit_bytes: int = LIMIT_BYTES) -> int:
    """Write every MultiHeadAttention with too many scores as several with fewer, in place.

    Scores are [batch, heads, queries, keys]: 512 MiB in Stable Diffusion 1.x at 512x512 in float16, 2.5 GiB
    at 768x768. What is computed for a query depends on no other query, so slices give the same numbers.

    Rules:
        1. Only query, key and value [batch, length, heads * size], each computed alone; an operator with a
           mask, an attention bias or past state stays.
        2. First each element of the batch gets an operator of its own; where that has more scores still,
           its queries are divided evenly into as few slices as will do.
        3. Each operator depends on the one before: its query goes through a Where whose condition is always
           false. DirectML gives operators that could run at once memory of their own:
           docs/explanation/directml.md, "Memory".

    Args:
        model: A model whose weights may have no values.
        sizes: Of the free dimensions of its inputs; None where every shape of the model is known already.
        limit_bytes: Most that the scores of one operator may take.

    Returns:
        How many operators were divided.

    Raises:
        ConversionError: A free dimension has no size.
    """
    writer = NodeWriter(model.graph, "slice_attention")
    divided = 0
    for node, fixed in nodes_at(model, sizes, (DOMAIN, "MultiHeadAttention")):
        scores = attention_scores_shape(fixed) if _may_be_divided(fixed) else None
        if scores is None:
            continue
        (query, *_) = fixed.inputs
        element_bytes = int((query.dtype if query and query.dtype else ir.DataType.FLOAT).itemsize)
        batch, heads, queries, keys = scores
        if prod(scores) * element_bytes <= limit_bytes:
            continue
        most = max(1, limit_bytes // (heads * keys * element_bytes))
        _divide(node, writer, batch, _lengths(queries, most))
        divided += 1
    return divided


def _may_be_divided(node: ir.Node) -> bool:
    """Whether an operator has query, key and value, each [batch, length, heads * size], and nothing else."""
    given = [each for each in node.inputs if each is not None]
    if len(given) != 3 or given != list(node.inputs[:3]) or len(node.outputs) != 1:
        return False
    value = static_shape(given[2])
    return value is not None and len(value) == 3 and bool(node.attributes.get_int("num_heads", 0))


def _lengths(queries: int, most: int) -> list[int]:
    """Divide queries evenly into as few slices as will do."""
    count = -(-queries // most)
    return [queries // count + (place < queries % count) for place in range(count)]


def _divide(node: ir.Node, writer: NodeWriter, batch: int, lengths: Sequence[int]) -> None:
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    writer.start(node)

    def split(whole: ir.Value, axis: int, pieces: Sequence[int], what: str) -> Sequence[ir.Value]:
        if len(pieces) == 1:
            return (whole,)
        label = f"{node.name}/{what}"
        splitting = ir.node(
            "Split",
            [whole, writer.constant(list(pieces))],
            attributes={"axis": axis},
            num_outputs=len(pieces),
            name=label,
        )
        for place, output in enumerate(splitting.outputs):
            output.name = f"{label}/{place}"
        graph.insert_before(node, splitting)
        return splitting.outputs

    def join(pieces: Sequence[ir.Value], axis: int) -> ir.Value:
        return pieces[0] if len(pieces) == 1 else writer.add("Concat", *pieces, axis=axis)

    elements = zip(
        *(
            split(whole, 0, [1] * batch, what)
            for whole, what in zip(node.inputs[:3], ("query", "key", "value"), strict=True)
            if whole is not None
        ),
        strict=True,
    )

    def after(earlier: ir.Value | None, query: ir.Value) -> ir.Value:
        if earlier is None:
            return query
        first = writer.add(
            "Slice", earlier, writer.constant([0] * 3), writer.constant([1] * 3), writer.constant([0, 1, 2])
        )
        return writer.add("Where", writer.constant([False], np.bool_), first, query)

    earlier: ir.Value | None = None
    answers = []
    for place, (query, key, value) in enumerate(elements):
        slices = []
        for number, piece in enumerate(split(query, 1, lengths, f"query/{place}")):
            attention = ir.node(
                "MultiHeadAttention",
                [after(earlier, piece), key, value],
                attributes=dict(node.attributes),
                domain=DOMAIN,
                name=f"{node.name}/{place}/{number}",
            )
            attention.outputs[0].name = attention.name
            graph.insert_before(node, attention)
            earlier = attention.outputs[0]
            slices.append(earlier)
        answers.append(join(slices, 1))
    take_place(join(answers, 0), node.outputs[0])
    graph.remove(node, safe=True)

"""Pass: ``com.microsoft.MultiHeadAttention`` in operators that every provider has."""

from __future__ import annotations

import math

import onnx_ir as ir

from conversions.errors import ConversionError
from conversions.passes.rewiring import NodeWriter, take_place
from conversions.shape_inference import infer_shapes


def expand_attention(model: ir.Model) -> int:
    """Write every MultiHeadAttention as two matrix products around a Softmax, in place.

    For providers without a kernel for it, or with one that computes wrong numbers (WebGPU on a software
    driver).

    Rules:
        1. Query, key and value [batch, sequence, heads * size] become [batch, heads, sequence, size] by
           Reshape to [0, 0, heads, -1] and Transpose.
        2. The query is scaled by 1/sqrt(size), or by the operator's ``scale``, before the first product, so
           that half precision does not overflow in it.
        3. An attention bias is added to the scores before the Softmax.

    Args:
        model: A model whose weights may have no values.

    Returns:
        How many operators were expanded.

    Raises:
        ConversionError: An operator uses masks, packed inputs or past state; this project writes none such.

    Source: Vaswani et al., "Attention Is All You Need", section 3.2; MultiHeadAttention in ONNX Runtime's
    ContribOperators.md.
    """
    infer_shapes(model)
    writer = NodeWriter(model.graph, "attention")
    operator = ("com.microsoft", "MultiHeadAttention")
    nodes = [node for node in model.graph if (node.domain, node.op_type) == operator]
    for node in nodes:
        writer.start(node)
        take_place(_written_out(node, writer), node.outputs[0])
        model.graph.remove(node, safe=True)
    return len(nodes)


def _written_out(node: ir.Node, writer: NodeWriter) -> ir.Value:
    inputs = dict(enumerate(node.inputs))
    query, key, value, bias = (inputs.get(index) for index in (0, 1, 2, 5))
    masked = any(inputs.get(index) is not None for index in (3, 4, 6, 7))
    causal = node.attributes.get_int("unidirectional", 0)
    if query is None or key is None or value is None or masked or causal or len(node.outputs) != 1:
        raise _unknown(node, "is a form of MultiHeadAttention that cannot be expanded")
    heads = int(node.attributes.get_int("num_heads", 0) or 0)
    split = writer.constant([0, 0, heads, -1])

    def by_head(whole: ir.Value, order: list[int]) -> ir.Value:
        return writer.add("Transpose", writer.add("Reshape", whole, split), perm=order)

    element = query.dtype or ir.DataType.FLOAT
    scale = writer.constant(_scale(node, query, heads), element.numpy())
    scaled = writer.add("Mul", by_head(query, [0, 2, 1, 3]), scale)
    scores = writer.add("MatMul", scaled, by_head(key, [0, 2, 3, 1]))
    if bias is not None:
        scores = writer.add("Add", scores, bias)
    weights = writer.add("Softmax", scores, axis=-1)
    mixed = writer.add("MatMul", weights, by_head(value, [0, 2, 1, 3]))
    merged = writer.add("Transpose", mixed, perm=[0, 2, 1, 3])
    return writer.add("Reshape", merged, writer.constant([0, 0, -1]))


def _scale(node: ir.Node, query: ir.Value, heads: int) -> float:
    scale = float(node.attributes.get_float("scale", 0.0) or 0.0)
    width = query.shape[-1] if query.shape is not None else None
    if scale:
        return scale
    if not isinstance(width, int) or not heads:
        raise _unknown(node, "has a query of unknown width")
    return 1.0 / math.sqrt(width / heads)


def _unknown(node: ir.Node, what: str) -> ConversionError:
    return ConversionError("graph.attention", f"'{node.name}' {what}.")

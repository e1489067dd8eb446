"""Pass: a bias, a residual and the layer normalisation of their sum as one operator."""

from __future__ import annotations

import onnx_ir as ir

from conversions.passes.rewiring import biased, take_place
from conversions.shape_inference import infer_shapes

DOMAIN = "com.microsoft"

_TYPES = frozenset({ir.DataType.FLOAT, ir.DataType.FLOAT16})


def fuse_skip_layer_norm(model: ir.Model) -> int:
    """Write Add of a bias, Add of a residual and LayerNormalization as one SkipLayerNormalization, in place.

    ONNX Runtime fuses the last two by itself, but leaves the bias alone where the sum goes on as the next
    residual.

    Rules:
        1. The first Add has one initializer of one dimension, the bias, and one computed input of three,
           whatever made it (MatMul, FusedMatMul, MatMulNBits); only the second Add reads it.
        2. The residual has the same shape. A dimension that is not known until sizes are counts as equal to
           another such one.
        3. The last dimension is normalised, by a scale and a shift of its length. Bias and scale are both
           float32 or both float16; a layer that stays in float32 is between Casts, and so is left alone.
        4. Other readers of the sum read the fourth output.

    Args:
        model: A model whose weights may have no values.

    Returns:
        How many operators were written.

    Source: com.microsoft.SkipLayerNormalization in ONNX Runtime's ContribOperators.md.
    """
    norms = [node for node in model.graph if (node.domain, node.op_type) == ("", "LayerNormalization")]
    if norms:
        infer_shapes(model)
    fused = sum(_fuse(model.graph, node) for node in norms)
    if fused:
        model.opset_imports.setdefault(DOMAIN, 1)
    return fused


def _fuse(graph: ir.Graph, norm: ir.Node) -> bool:
    total, *weights = norm.inputs
    adding = total.producer() if total is not None else None
    if total is None or adding is None or (adding.domain, adding.op_type) != ("", "Add"):
        return False
    if len(norm.outputs) != 1 or not _last_dimension(norm, total):
        return False
    for sum_of_bias, residual in (adding.inputs, reversed(adding.inputs)):
        parts = biased(sum_of_bias)
        if parts is None or sum_of_bias is None or residual is None:
            continue
        rest, bias = parts
        if _same_shape(rest, residual) and _fit(rest, bias, *weights):
            break
    else:
        return False
    bias_adding = sum_of_bias.producer()
    assert bias_adding is not None
    read_again = len(total.uses()) > 1 or total.is_graph_output()
    fused = ir.node(
        "SkipLayerNormalization",
        [rest, residual, *(weights if len(weights) == 2 else (*weights, None)), bias],
        attributes={"epsilon": float(norm.attributes.get_float("epsilon", 1e-5) or 0.0)},
        domain=DOMAIN,
        num_outputs=4 if read_again else 1,
        name=f"{norm.name or norm.outputs[0].name}_skip_layer_norm",
    )
    for unused in fused.outputs[1:3]:
        unused.name = ""
    graph.insert_before(adding, fused)
    take_place(fused.outputs[0], norm.outputs[0])
    if read_again:
        take_place(fused.outputs[3], total)
    graph.remove([norm, adding, bias_adding], safe=True)
    return True


def _last_dimension(norm: ir.Node, total: ir.Value) -> bool:
    rank = len(total.shape) if total.shape is not None else 0
    return rank == 3 and norm.attributes.get_int("axis", -1) in (-1, 2)


def _same_shape(first: ir.Value, second: ir.Value) -> bool:
    if first.shape is None or second.shape is None or len(first.shape) != len(second.shape):
        return False
    return all(one == other for one, other in zip(first.shape, second.shape, strict=True))


def _fit(rest: ir.Value, bias: ir.Value, *weights: ir.Value | None) -> bool:
    """Whether bias, scale and shift are initializers as long as a row, of one type that the kernels take."""
    width = rest.shape[-1] if rest.shape is not None else None
    vectors = [bias, *(weight for weight in weights if weight is not None)]
    return (
        isinstance(width, int)
        and bias.dtype in _TYPES
        and all(each.dtype is bias.dtype for each in vectors)
        and all(each.is_initializer() and each.shape == (width,) for each in vectors)
    )

"""Pass: a bias, and the gated GELU after it, as one operator."""

from __future__ import annotations

import onnx_ir as ir

from conversions.passes.rewiring import biased, only_reader, take_place
from conversions.shape_inference import infer_shapes

DOMAIN = "com.microsoft"

WIDTHS = frozenset({2560, 5120, 10240})
"""Lengths of a bias that the kernels take: those of Stable Diffusion's feed-forward layers.

Source: ONNX Runtime, contrib_ops/cuda/diffusion/bias_split_gelu.cc.
"""

_TYPES = frozenset({ir.DataType.FLOAT, ir.DataType.FLOAT16})


def fuse_bias_split_gelu(model: ir.Model) -> int:
    """Write Add of a bias, Split, Gelu and Mul as ``com.microsoft.BiasSplitGelu``, in place.

    Rules:
        1. The Add has one initializer of one dimension, the bias, and one computed input of three, whatever
           made it (MatMul, FusedMatMul, MatMulNBits).
        2. The bias has one of the ``WIDTHS``, and is float32 or float16.
        3. Split halves the last dimension; the Gelu of the second half is multiplied by the first.
        4. Nothing else reads what lies between.

    Args:
        model: A model whose weights may have no values.

    Returns:
        How many operators were written.

    Source: com.microsoft.BiasSplitGelu in ONNX Runtime's ContribOperators.md; Shazeer, "GLU Variants Improve
    Transformer", 2020.
    """
    gelus = [node for node in model.graph if (node.domain, node.op_type) == (DOMAIN, "Gelu")]
    if gelus:
        infer_shapes(model)
    return sum(_fuse(model.graph, node) for node in gelus)


def _fuse(graph: ir.Graph, gelu: ir.Node) -> bool:
    gate = gelu.inputs[0]
    split = gate.producer() if gate is not None else None
    product = only_reader(gelu.outputs[0], "Mul")
    if split is None or product is None or split.op_type != "Split" or len(split.outputs) != 2:
        return False
    left, right = split.outputs
    if right is not gate or set(product.inputs) != {left, gelu.outputs[0]}:
        return False
    if only_reader(left, "Mul") is None or only_reader(right, "Gelu") is None:
        return False
    total = split.inputs[0]
    parts = biased(total)
    if parts is None or total is None or not _halves(split) or not _fits(*parts):
        return False
    adding = total.producer()
    assert adding is not None
    fused = ir.node("BiasSplitGelu", parts, domain=DOMAIN, name=f"{product.name}_bias_split_gelu")
    graph.insert_before(product, fused)
    take_place(fused.outputs[0], product.outputs[0])
    graph.remove([product, gelu, split, adding], safe=True)
    return True


def _halves(split: ir.Node) -> bool:
    """Whether a Split in two halves the last of three dimensions; without a second input it halves."""
    first, second = (value.shape for value in split.outputs)
    if first is None or second is None or len(first) != 3 or first[-1] != second[-1]:
        return False
    return split.attributes.get_int("axis", 0) in (-1, 2)


def _fits(rest: ir.Value, bias: ir.Value) -> bool:
    if rest.shape is None or bias.shape is None or len(rest.shape) != 3:
        return False
    return bias.dtype in _TYPES and bias.shape[0] in WIDTHS and rest.shape[-1] == bias.shape[0]

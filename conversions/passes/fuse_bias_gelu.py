"""Pass: a bias and the GELU after it as one operator."""

from __future__ import annotations

import onnx_ir as ir

from conversions.passes.rewiring import biased, take_place

DOMAIN = "com.microsoft"


def fuse_bias_gelu(model: ir.Model) -> int:
    """Write Add of a bias, then ``com.microsoft.Gelu``, as ``com.microsoft.BiasGelu``, in place.

    Rules:
        1. The Add has one initializer of one dimension, the bias, and one computed input.
        2. Only the Gelu reads the sum.

    Args:
        model: A model whose weights may have no values.

    Returns:
        How many operators were written.

    Source: com.microsoft.BiasGelu in ONNX Runtime's ContribOperators.md.
    """
    gelus = [node for node in model.graph if (node.domain, node.op_type) == (DOMAIN, "Gelu")]
    return sum(_fuse(model.graph, node) for node in gelus)


def _fuse(graph: ir.Graph, gelu: ir.Node) -> bool:
    total = gelu.inputs[0]
    parts = biased(total)
    if parts is None or total is None:
        return False
    adding = total.producer()
    assert adding is not None
    fused = ir.node("BiasGelu", parts, domain=DOMAIN, name=gelu.name)
    graph.insert_before(gelu, fused)
    take_place(fused.outputs[0], gelu.outputs[0])
    graph.remove([gelu, adding], safe=True)
    return True

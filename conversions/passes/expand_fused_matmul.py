"""Pass: write FusedMatMul as Transpose and MatMul, for providers without the operator."""

from __future__ import annotations

import onnx_ir as ir

from conversions.passes.rewiring import NodeWriter, take_place
from conversions.passes.weights_as_stored import reads_as_stored


def expand_fused_matmul(model: ir.Model) -> int:
    """Write ``com.microsoft.FusedMatMul`` by a weight as the operators of ai.onnx, in place.

    ONNX Runtime computes the Transpose of a weight once, when it opens a session.

    Rules:
        1. Only ``transB=1`` beside a matrix, as ``weights_as_stored`` writes it; others stay as they are.

    Args:
        model: A model whose weights may have no values.

    Returns:
        How many operators were written.
    """
    writer = NodeWriter(model.graph, "expand_fused_matmul")
    found = [node for node in model.graph if reads_as_stored(node) and _is_by_a_matrix(node)]
    for node in found:
        writer.start(node)
        left, right = node.inputs
        assert right is not None
        right = writer.add("Transpose", right, perm=[1, 0])
        take_place(writer.add("MatMul", left, right), node.outputs[0])
        model.graph.remove(node, safe=True)
    return len(found)


def _is_by_a_matrix(node: ir.Node) -> bool:
    right = node.inputs[1]
    caster = right.producer() if right is not None else None
    if caster is not None and caster.op_type == "Cast":
        right = caster.inputs[0]
    return right is not None and right.shape is not None and len(right.shape) == 2

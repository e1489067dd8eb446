"""Pass: write FusedMatMul as Transpose and MatMul, for providers without the operator."""

from __future__ import annotations

import onnx_ir as ir

from conversions.passes.rewiring import NodeWriter, take_place


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
    found = [node for node in model.graph if node.op_type == "FusedMatMul" and _is_plain(node)]
    for node in found:
        writer.start(node)
        left, right = node.inputs
        assert right is not None
        right = writer.add("Transpose", right, perm=[1, 0])
        take_place(writer.add("MatMul", left, right), node.outputs[0])
        model.graph.remove(node, safe=True)
    return len(found)


def _is_plain(node: ir.Node) -> bool:
    right = node.inputs[1]
    caster = right.producer() if right is not None else None
    if caster is not None and caster.op_type == "Cast":
        right = caster.inputs[0]
    others = {name: node.attributes.get_int(name, 0) for name in ("transA", "transBatchA", "transBatchB")}
    return (
        node.attributes.get_int("transB", 0) == 1
        and not any(others.values())
        and node.attributes.get_float("alpha", 1.0) == 1.0
        and right is not None
        and right.shape is not None
        and len(right.shape) == 2
    )

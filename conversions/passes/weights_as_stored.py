"""Pass: multiply by weights in the order in which PyTorch stores them, so that nobody transposes them."""

from __future__ import annotations

import onnx_ir as ir

from conversions.passes.simplify import TRANSPOSED

DOMAIN = "com.microsoft"


def weights_as_stored(model: ir.Model) -> int:
    """Write MatMul by a weight that is wanted transposed as ``com.microsoft.FusedMatMul``, in place.

    PyTorch stores the weight of a linear layer as [outputs, inputs], MatMul wants [inputs, outputs], and
    FusedMatMul with ``transB=1`` reads PyTorch's order. So the weight's bytes are those of the checkpoint.

    Rules:
        1. Every reader of the weight is a MatMul that has it on the right, by itself or behind one Cast.
        2. A weight with another reader stays marked as transposed, and is transposed when it is written.

    Args:
        model: A model whose weights may have no values.

    Returns:
        How many operators were written.

    Source: com.microsoft.FusedMatMul in ONNX Runtime's ContribOperators.md.
    """
    count = 0
    for weight in list(model.graph.initializers.values()):
        if TRANSPOSED not in weight.metadata_props:
            continue
        products = _products_with(weight)
        if products is None:
            continue
        del weight.metadata_props[TRANSPOSED]
        assert weight.shape is not None
        weight.shape = ir.Shape(tuple(weight.shape)[::-1])
        for product in products:
            product.domain = DOMAIN
            product.op_type = "FusedMatMul"
            product.attributes["transB"] = ir.AttrInt64("transB", 1)
            count += 1
    if count:
        model.graph.opset_imports.setdefault(DOMAIN, 1)
    return count


def reads_as_stored(node: ir.Node) -> bool:
    """Whether a node is a FusedMatMul as this pass writes it: ``transB=1`` and nothing else."""
    others = {name: node.attributes.get_int(name, 0) for name in ("transA", "transBatchA", "transBatchB")}
    return (
        node.op_type == "FusedMatMul"
        and node.attributes.get_int("transB", 0) == 1
        and not any(others.values())
        and node.attributes.get_float("alpha", 1.0) == 1.0
    )


def _products_with(value: ir.Value) -> list[ir.Node] | None:
    """Return the MatMuls that read a value on the right; None when something else reads it."""
    found: list[ir.Node] = []
    for use in value.uses():
        if use.node.op_type == "MatMul" and use.idx == 1:
            found.append(use.node)
        elif use.node.op_type == "Cast" and (cast := _products_with(use.node.outputs[0])) is not None:
            found += cast
        else:
            return None
    return found

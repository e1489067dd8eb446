"""Pass: products by a weight, and the bias after them, as Gemm, for providers that are faster at it."""

from __future__ import annotations

import onnx_ir as ir

from conversions.passes.rewiring import NodeWriter, only_reader, take_place
from conversions.passes.weights_as_stored import reads_as_stored
from conversions.shape_inference import infer_shapes, static_shape


def fused_matmul_to_gemm(model: ir.Model) -> int:
    """Write ``com.microsoft.FusedMatMul`` by a weight as Gemm of two matrices, in place.

    DirectML takes about twice as long for a stack of matrices [batch, length, features] as for the same rows
    in one matrix (docs/explanation/directml.md).

    Rules:
        1. FusedMatMul with ``transB=1`` and nothing else, as ``weights_as_stored`` writes it; its second
           input is a matrix [outputs, features].
        2. An Add of an initializer [outputs] after it becomes Gemm's third input where nothing else reads
           the product.
        3. Inputs of other ranks are reshaped before and after; products of one input share the first Reshape.

    Args:
        model: A model whose weights may have no values.

    Returns:
        How many operators were written.

    Source: com.microsoft.FusedMatMul in ONNX Runtime's ContribOperators.md; Gemm in ONNX's Operators.md.
    """
    infer_shapes(model)
    products = [node for node in model.graph if reads_as_stored(node) and _has_known_shapes(node)]
    writer = NodeWriter(model.graph, "fused_matmul_to_gemm")
    matrices: dict[ir.Value, tuple[ir.Value, ir.Value]] = {}
    for product in products:
        rows, weight = product.inputs
        assert rows is not None and weight is not None and rows.shape is not None and weight.shape is not None
        writer.start(product)
        if len(rows.shape) != 2 and rows not in matrices:
            matrix = writer.add("Reshape", rows, writer.constant([-1, weight.shape[1]]))
            matrices[rows] = matrix, writer.add("Shape", rows, end=-1)
        matrix, leading = matrices.get(rows, (rows, None))
        last, bias = _bias_after(product, weight)
        result = writer.add("Gemm", matrix, weight, *((bias,) if bias is not None else ()), transB=1)
        if leading is not None:
            whole = writer.add("Concat", leading, writer.constant([weight.shape[0]]), axis=0)
            result = writer.add("Reshape", result, whole)
        take_place(result, last.outputs[0])
        model.graph.remove([last, product], safe=True)
    return len(products)


def _has_known_shapes(product: ir.Node) -> bool:
    rows, weight = product.inputs
    shape = static_shape(weight) if weight is not None else None
    return rows is not None and rows.shape is not None and shape is not None and len(shape) == 2


def _bias_after(product: ir.Node, weight: ir.Value) -> tuple[ir.Node, ir.Value | None]:
    """Return the last node of a product and its bias: the Add of the bias, or the product itself."""
    adding = only_reader(product.outputs[0], "Add")
    if adding is None or weight.shape is None:
        return product, None
    biases = [
        each
        for each in adding.inputs
        if each is not None and each.is_initializer() and each.shape == (weight.shape[0],)
    ]
    return (adding, biases[0]) if len(biases) == 1 else (product, None)

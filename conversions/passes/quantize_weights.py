"""Pass: multiply by weights of 4 or 8 bits."""

from __future__ import annotations

import re
from collections.abc import Sequence

import onnx_ir as ir

from conversions.passes.rewiring import take_place
from conversions.weights.quantize import BITS, BLOCK, quantizable

DOMAIN = "com.microsoft"

QUANTIZED = "sdsetup.quantized"
"""Metadata of an initializer that holds part of a quantised weight: which part, the precision, its name."""


def quantize_weights(model: ir.Model, precision: str, keep: Sequence[str]) -> int:
    """Write products by a weight in PyTorch's order as ``com.microsoft.MatMulNBits``, in place.

    Each weight becomes three initializers without values: codes, scales and zero points.

    Rules:
        1. The weight is a matrix [N, K] whose K is a multiple of 64, and only FusedMatMul reads it, or a Gemm
           that does no more than a linear layer: what the modulation of a layer is traced to.
        2. What the patterns name stays, as do weights that are kept in float32 behind a Cast.
        3. Exactly four inputs are written, with scales of two dimensions and zero points always, which every
           ONNX Runtime's kernels take; a bias stays the Add that it is.

    Args:
        model: A model that ``weights_as_stored`` went over; its weights may have no values.
        precision: ``"int4"`` or ``"int8"``.
        keep: Regular expressions of weights that are not quantised, because results depend on them most.

    Returns:
        How many weights were quantised.
    """
    count = 0
    for weight in list(model.graph.initializers.values()):
        products = [use.node for use in weight.uses()]
        if (
            weight.shape is None
            or not products
            or not quantizable(tuple(weight.shape.numpy()))
            or not all(_is_linear(product, weight) for product in products)
            or any(re.search(pattern, str(weight.name)) for pattern in keep)
        ):
            continue
        parts = _parts(model, weight, precision)
        rows, columns = weight.shape.numpy()
        for product in products:
            fused = ir.node(
                "MatMulNBits",
                [product.inputs[0], *parts],
                {"K": columns, "N": rows, "bits": BITS[precision], "block_size": BLOCK},
                domain=DOMAIN,
                name=product.name,
            )
            model.graph.insert_before(product, fused)
            result = fused.outputs[0]
            if product.op_type == "Gemm" and len(product.inputs) == 3:
                bias = ir.node("Add", [result, product.inputs[2]], name=f"{product.name}_bias")
                model.graph.insert_before(product, bias)
                result = bias.outputs[0]
            take_place(result, product.outputs[0])
            model.graph.remove(product, safe=True)
        del model.graph.initializers[str(weight.name)]
        count += 1
    return count


def _is_linear(node: ir.Node, weight: ir.Value) -> bool:
    """Say whether a node multiplies by a weight in PyTorch's order, and adds a bias at most."""
    if node.op_type == "FusedMatMul":
        return True
    attributes = node.attributes
    return (
        node.op_type == "Gemm"
        and node.inputs[1] is weight
        and attributes.get_int("transB", 0) == 1
        and attributes.get_int("transA", 0) == 0
        and attributes.get_float("alpha", 1.0) == attributes.get_float("beta", 1.0) == 1.0
    )


def quantized_weights(model: ir.Model) -> list[str]:
    """Return the names of the weights that a model holds quantised, sorted."""
    products = (node for node in model.graph if node.op_type == "MatMulNBits")
    codes = (str(node.inputs[1].name) for node in products if node.inputs[1] is not None)
    return sorted({name.removesuffix(".codes") for name in codes})


def _parts(model: ir.Model, weight: ir.Value, precision: str) -> list[ir.Value]:
    assert weight.shape is not None
    assert weight.dtype is not None
    rows, columns = weight.shape.numpy()
    bits, blocks = BITS[precision], columns // BLOCK
    found = []
    for part, dtype, shape in (
        ("codes", ir.DataType.UINT8, (rows, blocks, BLOCK * bits // 8)),
        ("scales", weight.dtype, (rows, blocks)),
        ("zero_points", ir.DataType.UINT8, (rows, blocks * bits // 8)),
    ):
        value = ir.Value(name=f"{weight.name}.{part}", shape=ir.Shape(shape), type=ir.TensorType(dtype))
        value.metadata_props[QUANTIZED] = f"{part} {precision} {weight.name}"
        model.graph.initializers[str(value.name)] = value
        found.append(value)
    return found

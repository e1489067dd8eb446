"""Which products are written with quantised weights."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from conversions.passes.quantize_weights import quantize_weights, quantized_weights


def linear(**attributes: float) -> ir.Model:
    """A linear layer of few rows, as it is traced: a Gemm with a bias."""
    half = ir.TensorType(ir.DataType.FLOAT16)
    rows = ir.Value(name="rows", shape=ir.Shape([1, 64]), type=half)
    weight = ir.Value(name="norm.linear.weight", shape=ir.Shape([128, 64]), type=half)
    bias = ir.Value(name="norm.linear.bias", shape=ir.Shape([128]), type=half)
    node = ir.node("Gemm", [rows, weight, bias], attributes, name="linear")
    node.outputs[0].name, node.outputs[0].type = "result", half
    graph = ir.Graph(
        [rows],
        node.outputs,
        nodes=[node],
        initializers=[weight, bias],
        opset_imports={"": 18, "com.microsoft": 1},
    )
    return ir.Model(graph, ir_version=10)


def test_a_gemm_that_is_a_linear_layer_is_a_product_and_a_sum() -> None:
    model = linear(transB=1)
    assert quantize_weights(model, "int4", ()) == 1
    assert [node.op_type for node in model.graph] == ["MatMulNBits", "Add"]
    assert model.graph.outputs[0] is list(model.graph)[-1].outputs[0]
    assert model.graph.outputs[0].name == "result"
    assert quantized_weights(model) == ["norm.linear.weight"]
    assert "norm.linear.bias" in model.graph.initializers


@pytest.mark.parametrize("attributes", [{}, {"transB": 1, "alpha": 0.5}, {"transA": 1, "transB": 1}])
def test_a_gemm_that_does_more_stays(attributes: dict[str, float]) -> None:
    model = linear(**attributes)
    assert quantize_weights(model, "int4", ()) == 0
    assert [node.op_type for node in model.graph] == ["Gemm"]


@pytest.mark.parametrize(("precision", "codes", "zero_points"), [("int4", 16, 1), ("int8", 32, 2)])
def test_the_parts_of_a_weight_have_the_shapes_that_the_operator_wants(
    precision: str, codes: int, zero_points: int
) -> None:
    model = linear(transB=1)
    assert quantize_weights(model, precision, ()) == 1
    stored = model.graph.initializers
    shapes = {name.rpartition(".")[2]: value.shape for name, value in stored.items()}
    assert {name: None if shape is None else shape.numpy() for name, shape in shapes.items()} == {
        "bias": (128,),
        "codes": (128, 2, codes),
        "scales": (128, 2),
        "zero_points": (128, zero_points),
    }
    for shape in shapes.values():
        assert shape is not None
        assert all(type(size) is int for size in shape.numpy())


def test_weights_without_a_reader_or_a_shape_stay() -> None:
    model = linear(transB=1)
    half = ir.TensorType(ir.DataType.FLOAT16)
    unread = ir.Value(name="unread.weight", shape=ir.Shape([128, 64]), type=half)
    shapeless = ir.Value(name="shapeless.weight", type=half)
    read = ir.node("Gemm", [model.graph.inputs[0], shapeless], {"transB": 1})
    model.graph.append(read)
    model.graph.initializers.update({str(value.name): value for value in (unread, shapeless)})
    assert quantize_weights(model, "int4", ()) == 1
    assert {"unread.weight", "shapeless.weight"} <= set(model.graph.initializers)
    assert [node.op_type for node in model.graph] == ["MatMulNBits", "Add", "Gemm"]

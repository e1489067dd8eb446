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

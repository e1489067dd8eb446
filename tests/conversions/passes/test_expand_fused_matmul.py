"""FusedMatMul by a weight, in ONNX's own operators."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from conversions.passes.expand_fused_matmul import expand_fused_matmul
from tests.conversions.graphs_for_tests import psnr, readers, run_on_cpu

WEIGHT = np.random.default_rng(3).standard_normal((5, 3)).astype(np.float32)
FEEDS = {"x": np.random.default_rng(4).standard_normal((2, 7, 3)).astype(np.float32)}


def graph(body: str, weight: tuple[int, ...] | None = (5, 3)) -> ir.Model:
    text = f"""
    <ir_version: 10, opset_import: ["" : 18, "com.microsoft" : 1]>
    g (float[batch, length, 3] x, float[5, 3] w) => (float[batch, length, n] y) {{ {body} }}
    """
    model = ir.from_proto(onnx.parser.parse_model(text))
    value = model.graph.inputs.pop()
    value.const_value = ir.tensor(WEIGHT, name="w")
    value.shape = None if weight is None else ir.Shape(weight)
    model.graph.initializers["w"] = value
    return model


def operators(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


@pytest.mark.parametrize("attributes", ["transB = 1", "transB = 1, alpha = 1.0, transA = 0, transBatchA = 0"])
def test_a_product_by_a_stored_weight_is_written_out(attributes: str) -> None:
    model = graph(f"y = com.microsoft.FusedMatMul <{attributes}> (x, w)")
    assert expand_fused_matmul(model) == 1
    assert operators(model) == ["Transpose", "MatMul"]
    assert readers(model) == set(model.graph)
    assert psnr(FEEDS["x"] @ WEIGHT.T, run_on_cpu(model, FEEDS)[0]) > 120


def test_every_such_product_is_and_a_cast_in_between_does_not_matter() -> None:
    body = """
        c = Cast <to = 1> (w)
        a = com.microsoft.FusedMatMul <transB = 1> (x, c)
        b = com.microsoft.FusedMatMul <transB = 1> (x, w)
        y = Add(a, b)
    """
    model = graph(body)
    assert expand_fused_matmul(model) == 2
    assert operators(model) == ["Cast", "Transpose", "MatMul", "Transpose", "MatMul", "Add"]
    assert psnr(2 * (FEEDS["x"] @ WEIGHT.T), run_on_cpu(model, FEEDS)[0]) > 120


@pytest.mark.parametrize(
    "attributes",
    [
        "alpha = 1.0",
        "transB = 0",
        "transB = 1, alpha = 2.0",
        "transB = 1, transA = 1",
        "transB = 1, transBatchA = 1",
        "transB = 1, transBatchB = 1",
    ],
)
def test_products_that_do_more_stay(attributes: str) -> None:
    model = graph(f"y = com.microsoft.FusedMatMul <{attributes}> (x, w)")
    assert expand_fused_matmul(model) == 0
    assert operators(model) == ["FusedMatMul"]


@pytest.mark.parametrize("shape", [None, (5,), (1, 5, 3)])
def test_products_by_what_is_no_matrix_stay(shape: tuple[int, ...] | None) -> None:
    for body in (
        "y = com.microsoft.FusedMatMul <transB = 1> (x, w)",
        "c = Cast <to = 1> (w) y = com.microsoft.FusedMatMul <transB = 1> (x, c)",
    ):
        assert expand_fused_matmul(graph(body, shape)) == 0


def test_a_matrix_behind_another_operator_is_seen_by_its_own_shape() -> None:
    model = graph("c = Neg(w) y = com.microsoft.FusedMatMul <transB = 1> (x, c)")
    assert expand_fused_matmul(model) == 0
    next(iter(model.graph)).outputs[0].shape = ir.Shape((5, 3))
    assert expand_fused_matmul(model) == 1

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from conversions.passes.fused_matmul_to_gemm import fused_matmul_to_gemm
from tests.conversions.graphs_for_tests import readers, run_on_cpu

PRODUCT = "p = com.microsoft.FusedMatMul <transB = 1> (x, w)"
STACK = ("batch, length, 8", "batch, length, 6")
AS_ONE_MATRIX = ["Reshape", "Shape", "Gemm", "Concat", "Reshape"]


def graph(*lines: str, shapes: tuple[str, str] = STACK) -> ir.Model:
    proto = onnx.parser.parse_model(f"""
    <ir_version: 10, opset_import: ["" : 18, "com.microsoft" : 1]>
    g (float[{shapes[0]}] x) => (float[{shapes[1]}] y) {{ {" ".join(lines)} }}
    """)
    random = np.random.default_rng(3)
    weights = {"w": (6, 8), "other": (6, 8), "plain": (8, 6), "bias": (6,), "row": (1, 6), "one": (1,)}
    proto.graph.initializer.extend(
        onnx.numpy_helper.from_array(random.normal(0, 1, shape).astype(np.float32), name)
        for name, shape in weights.items()
    )
    return ir.from_proto(proto)


def rewritten(*lines: str, shapes: tuple[str, str] = STACK, x: tuple[int, ...] = (2, 5, 8)) -> list[str]:
    """Check that the pass keeps what a graph computes; returns the operators that it leaves."""
    feeds = {"x": np.random.default_rng(1).normal(0, 1, x).astype(np.float32)}
    model = graph(*lines, shapes=shapes)
    written = fused_matmul_to_gemm(model)
    (old,), (new,) = run_on_cpu(graph(*lines, shapes=shapes), feeds), run_on_cpu(model, feeds)
    assert new.shape == old.shape
    np.testing.assert_allclose(new, old, rtol=1e-5, atol=1e-5)
    operators = [node.op_type for node in model.graph]
    assert operators.count("Gemm") == written
    assert readers(model) <= set(model.graph)
    constants = set(model.graph.initializers) - set(graph(*lines, shapes=shapes).graph.initializers)
    assert all(name.startswith("fused_matmul_to_gemm_constant") for name in constants)
    return operators


@pytest.mark.parametrize("adding", ["y = Add(p, bias)", "y = Add(bias, p)"])
def test_a_stack_becomes_one_matrix_and_takes_its_bias_along(adding: str) -> None:
    assert rewritten(PRODUCT, adding) == AS_ONE_MATRIX


def test_four_dimensions() -> None:
    shapes = ("a, b, c, 8", "a, b, c, 6")
    assert rewritten(PRODUCT, "y = Add(p, bias)", shapes=shapes, x=(2, 3, 4, 8)) == AS_ONE_MATRIX


def test_a_matrix_is_not_reshaped() -> None:
    assert rewritten(PRODUCT, "y = Add(p, bias)", shapes=("n, 8", "n, 6"), x=(5, 8)) == ["Gemm"]


@pytest.mark.parametrize(
    "lines",
    [
        ("y = Add(p, row)",),
        ("y = Add(p, one)",),
        ("y = Add(p, p)",),
        ("z = Add(p, bias)", "y = Mul(z, p)"),
    ],
)
def test_what_is_no_bias_of_this_product_stays_an_addition(lines: tuple[str, ...]) -> None:
    operators = rewritten(PRODUCT, *lines)
    assert [each for each in operators if each in AS_ONE_MATRIX] == AS_ONE_MATRIX
    assert "Add" in operators


def test_products_of_one_input_share_its_reshape() -> None:
    other = "q = com.microsoft.FusedMatMul <transB = 1> (x, other)"
    operators = rewritten(PRODUCT, other, "y = Mul(p, q)")
    assert operators.count("Gemm") == 2
    # Before both once, and after each.
    assert operators.count("Reshape") == 3


@pytest.mark.parametrize(
    "product",
    [
        "y = com.microsoft.FusedMatMul (x, plain)",
        "y = com.microsoft.FusedMatMul <transB = 1, alpha = 0.5> (x, w)",
    ],
)
def test_other_products_stay(product: str) -> None:
    assert rewritten(product) == ["FusedMatMul"]


def test_a_product_of_two_computed_values_stays() -> None:
    turned = "y = com.microsoft.FusedMatMul <transB = 1> (x, x)"
    assert rewritten(turned, shapes=("a, b, 8", "a, b, b")) == ["FusedMatMul"]

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from conversions.passes.fuse_bias_split_gelu import fuse_bias_split_gelu
from tests.conversions.graphs_for_tests import psnr, run_by_definition, run_on_cpu

WIDTH = 2560
MATMUL = "p = MatMul(x, w)"
FUSED_MATMUL = "p = com.microsoft.FusedMatMul <transB = 1> (x, wt)"
BIAS = "b = Add(p, bias)"
SPLIT = "l, r = Split <axis = -1, num_outputs = 2> (b)"
GATED = f"{SPLIT} g = com.microsoft.Gelu(r) y = Mul(l, g)"


def graph(*lines: str, width: int = WIDTH, dtype: str = "float", length: str = "length") -> ir.Model:
    """A feed-forward layer's first half: a product, its bias, a gated GELU."""
    text = f"""
    <ir_version: 10, opset_import: ["" : 18, "com.microsoft" : 1]>
    g ({dtype}[batch, {length}, 8] x) => ({dtype}[batch, {length}, {width // 2}] y) {{ {" ".join(lines)} }}
    """
    proto = onnx.parser.parse_model(text)
    random = np.random.default_rng(2)
    element = np.float16 if dtype == "float16" else np.float32
    weight = random.normal(0, 0.3, (8, width)).astype(element)
    for name, array in {"w": weight, "wt": weight.T, "bias": random.normal(0, 1, width)}.items():
        proto.graph.initializer.append(
            onnx.numpy_helper.from_array(np.ascontiguousarray(array, element), name)
        )
    return ir.from_proto(proto)


def feeds(element: type = np.float32) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(1).normal(0, 1, (2, 3, 8)).astype(element)}


@pytest.mark.parametrize("product", [MATMUL, FUSED_MATMUL])
def test_what_it_writes_computes_what_the_unfused_twin_computes(product: str) -> None:
    twin = run_on_cpu(graph(product, BIAS, GATED), feeds())[0]
    model = graph(product, BIAS, GATED)

    assert fuse_bias_split_gelu(model) == 1
    written = [node.op_type for node in model.graph]
    assert written == [product.split("(")[0].split()[2].split(".")[-1], "BiasSplitGelu"]
    if product == MATMUL:  # the reference evaluator does not know the other
        assert psnr(twin, run_by_definition(model, feeds())[0]) > 120


def test_float16_is_fused_too() -> None:
    twin = run_by_definition(graph(MATMUL, BIAS, GATED, dtype="float16"), feeds(np.float16))[0]
    model = graph(MATMUL, BIAS, GATED, dtype="float16")

    assert fuse_bias_split_gelu(model) == 1
    assert psnr(twin, run_by_definition(model, feeds(np.float16))[0]) > 60


@pytest.mark.parametrize("width", [2560, 5120, 10240])
def test_widths_that_the_kernels_take(width: int) -> None:
    assert fuse_bias_split_gelu(graph(MATMUL, BIAS, GATED, width=width)) == 1


@pytest.mark.parametrize("width", [1280, 2048, 3072, 20480])
def test_other_widths_are_left_alone(width: int) -> None:
    assert fuse_bias_split_gelu(graph(MATMUL, BIAS, GATED, width=width)) == 0


@pytest.mark.parametrize(
    ("lines", "length"),
    [
        ((MATMUL, BIAS, SPLIT, "g = com.microsoft.Gelu(l) y = Mul(r, g)"), "length"),
        ((MATMUL, BIAS, GATED.replace("axis = -1", "axis = 1")), "4"),
        ((MATMUL, BIAS, SPLIT, "g = Sigmoid(r) y = Mul(l, g)"), "length"),
        ((MATMUL, BIAS, SPLIT, "g = com.microsoft.Gelu(r) y = Mul(r, g)"), "length"),
        ((MATMUL, BIAS, SPLIT, "g = com.microsoft.Gelu(r) y = Add(l, g)"), "length"),
        ((MATMUL, GATED.replace("(b)", "(p)")), "length"),
        ((MATMUL, "b = Add(p, p)", GATED), "length"),
    ],
)
def test_other_patterns_are_left_alone(lines: tuple[str, ...], length: str) -> None:
    assert fuse_bias_split_gelu(graph(*lines, length=length)) == 0


@pytest.mark.parametrize(
    "again",
    [
        "y = Add(z, g)",
        "y = Add(z, l)",
        "y = Add(z, r)",
        "c, d = Split <axis = -1, num_outputs = 2> (b) y = Add(z, c)",
    ],
)
def test_values_that_are_read_again_are_left_alone(again: str) -> None:
    product = GATED.replace("y = Mul", "z = Mul")
    assert fuse_bias_split_gelu(graph(MATMUL, BIAS, product, again)) == 0


def test_a_layer_between_casts_is_fused_in_its_own_type() -> None:
    """Kept in float32, its bias is float32 as its product is; so is what the operator gives."""
    text = f"""
    <ir_version: 10, opset_import: ["" : 18, "com.microsoft" : 1]>
    g (float16[batch, length, {WIDTH}] x) => (float16[batch, length, {WIDTH // 2}] y) {{
        p = Cast <to = 1> (x) {BIAS} {GATED.replace("y = ", "z = ")} y = Cast <to = 10> (z)
    }}
    """
    proto = onnx.parser.parse_model(text)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros(WIDTH, np.float32), "bias"))
    model = ir.from_proto(proto)

    assert fuse_bias_split_gelu(model) == 1
    assert [node.op_type for node in model.graph] == ["Cast", "BiasSplitGelu", "Cast"]


def test_a_bias_apart_from_its_gate_by_a_cast_is_left_alone() -> None:
    text = f"""
    <ir_version: 10, opset_import: ["" : 18, "com.microsoft" : 1]>
    g (float16[batch, length, {WIDTH}] p) => (float[batch, length, {WIDTH // 2}] y) {{
        a = Add(p, bias) b = Cast <to = 1> (a) {GATED}
    }}
    """
    proto = onnx.parser.parse_model(text)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros(WIDTH, np.float16), "bias"))
    assert fuse_bias_split_gelu(ir.from_proto(proto)) == 0

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from conversions.passes.fuse_skip_layer_norm import fuse_skip_layer_norm
from tests.conversions.graphs_for_tests import psnr, run_on_cpu

MATMUL = "p = MatMul(x, w)"
FUSED_MATMUL = "p = com.microsoft.FusedMatMul <transB = 1> (x, wt)"
BIAS = "b = Add(p, bias)"
SUM = "s = Add(b, h)"
NORM = "n = LayerNormalization <axis = -1, epsilon = 0.001> (s, scale, shift)"
ONWARD = "y = Add(n, s)"
LAYER = (MATMUL, BIAS, SUM, NORM, ONWARD)


def graph(
    *lines: str,
    dtype: str = "float",
    rest: str = "batch, length, 8",
    scale: str | None = None,
    length: str = "length",
) -> ir.Model:
    """A layer's end: a product, its bias, the residual ``h``, the next layer's normalisation."""
    text = f"""
    <ir_version: 10, opset_import: ["" : 18, "com.microsoft" : 1]>
    g ({dtype}[batch, {length}, 8] x, {dtype}[{rest}] h) => ({dtype}[batch, {length}, 8] y)
    {{ {" ".join(lines)} }}
    """
    proto = onnx.parser.parse_model(text)
    random = np.random.default_rng(2)
    weight = random.normal(0, 0.3, (8, 8))
    arrays = {
        "w": weight,
        "wt": np.ascontiguousarray(weight.T),
        "bias": random.normal(0, 1, 8),
        "scale": random.normal(1, 0.3, 8),
        "shift": random.normal(0, 0.3, 8),
    }
    for name, array in arrays.items():
        element = scale if scale and name in ("scale", "shift") else dtype
        kind = np.float16 if element == "float16" else np.float32
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array.astype(kind), name))
    others = {
        "wide": np.ones((5, 8), np.float32),
        "bias32": np.ones(8, np.float32),
        "flat": np.array([-1, 8]),
    }
    proto.graph.initializer.extend(
        onnx.numpy_helper.from_array(array, name) for name, array in others.items()
    )
    return ir.from_proto(proto)


def feeds(element: type = np.float32) -> dict[str, np.ndarray]:
    random = np.random.default_rng(1)
    return {name: random.normal(0, 2, (2, 5, 8)).astype(element) for name in ("x", "h")}


def operators(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


@pytest.mark.parametrize("product", [MATMUL, FUSED_MATMUL])
@pytest.mark.parametrize("total", [SUM, "s = Add(h, b)"])
@pytest.mark.parametrize("bias", [BIAS, "b = Add(bias, p)"])
def test_the_fused_graph_computes_what_its_unfused_twin_computes(product: str, total: str, bias: str) -> None:
    lines = (product, bias, total, NORM, ONWARD)
    twin = run_on_cpu(graph(*lines), feeds())[0]
    model = graph(*lines)

    assert fuse_skip_layer_norm(model) == 1
    assert operators(model)[1:] == ["SkipLayerNormalization", "Add"]
    assert psnr(twin, run_on_cpu(model, feeds())[0]) > 120


def test_a_sum_that_only_the_norm_reads_is_not_written() -> None:
    lines = (MATMUL, BIAS, SUM, NORM.replace("n = ", "y = "))
    twin = run_on_cpu(graph(*lines), feeds())[0]
    model = graph(*lines)

    assert fuse_skip_layer_norm(model) == 1
    assert [len(node.outputs) for node in model.graph] == [1, 1]
    assert psnr(twin, run_on_cpu(model, feeds())[0]) > 120


def test_a_norm_without_a_shift() -> None:
    lines = (MATMUL, BIAS, SUM, NORM.replace(", shift", ""), ONWARD)
    twin = run_on_cpu(graph(*lines), feeds())[0]
    model = graph(*lines)

    assert fuse_skip_layer_norm(model) == 1
    assert psnr(twin, run_on_cpu(model, feeds())[0]) > 120


def test_layers_one_after_the_other_read_each_other_s_sums() -> None:
    second = "q = MatMul(n, w) c = Add(q, bias) t = Add(c, s) m = LayerNormalization (t, scale, shift)"
    lines = (MATMUL, BIAS, SUM, NORM, second, "y = Add(m, t)")
    twin = run_on_cpu(graph(*lines), feeds())[0]
    model = graph(*lines)

    assert fuse_skip_layer_norm(model) == 2
    assert operators(model) == ["MatMul", "SkipLayerNormalization", "MatMul", "SkipLayerNormalization", "Add"]
    assert psnr(twin, run_on_cpu(model, feeds())[0]) > 120


def test_float16_is_fused_too() -> None:
    twin = run_on_cpu(graph(*LAYER, dtype="float16"), feeds(np.float16))[0]
    model = graph(*LAYER, dtype="float16")

    assert fuse_skip_layer_norm(model) == 1
    assert psnr(twin, run_on_cpu(model, feeds(np.float16))[0]) > 55


@pytest.mark.parametrize(
    "lines",
    [
        (MATMUL, "b = Identity(p)", SUM, NORM, ONWARD),
        (MATMUL, "b = Add(p, x)", SUM, NORM, ONWARD),
        (MATMUL, BIAS, SUM, NORM, "t = Add(n, s) y = Add(t, b)"),
        (MATMUL, BIAS, SUM, "n = LayerNormalization <axis = 1> (s, wide, wide)", ONWARD),
        (MATMUL, BIAS, SUM, "n = LayerNormalization <axis = 1> (s, scale, shift)", ONWARD),
        (MATMUL, BIAS, "s = Mul(b, h)", NORM, ONWARD),
    ],
)
def test_other_patterns_are_left_alone(lines: tuple[str, ...]) -> None:
    assert fuse_skip_layer_norm(graph(*lines, length="5", rest="batch, 5, 8")) == 0


@pytest.mark.parametrize("rest", ["1, length, 8", "batch, 1, 8", "length, 8", "8"])
def test_a_residual_that_is_broadcast_is_left_alone(rest: str) -> None:
    assert fuse_skip_layer_norm(graph(*LAYER, rest=rest)) == 0


def test_two_dimensions_are_left_alone() -> None:
    """ONNX Runtime makes MatMul and Add of two dimensions a Gemm."""
    lines = ("f = Reshape(x, flat)", "p = MatMul(f, w)", BIAS, SUM, NORM, "y = Identity(s)")
    assert fuse_skip_layer_norm(graph(*lines, rest="many, 8")) == 0


def test_a_norm_that_stays_in_float32_is_left_alone() -> None:
    kept = NORM.replace("(s,", "(k,").replace("n = ", "m = ")
    casts = ("k = Cast <to = 1> (s)", kept, "n = Cast <to = 10> (m)")
    model = graph(MATMUL, BIAS, SUM, *casts, ONWARD, dtype="float16", scale="float")
    before = operators(model)

    assert fuse_skip_layer_norm(model) == 0
    assert operators(model) == before


def test_a_bias_that_stays_in_float32_is_left_alone() -> None:
    kept = "p32 = Cast <to = 1> (p) b32 = Add(p32, bias32) b = Cast <to = 10> (b32)"
    model = graph(MATMUL, kept, SUM, NORM, ONWARD, dtype="float16")
    assert fuse_skip_layer_norm(model) == 0


def test_types_without_a_kernel_are_left_alone() -> None:
    model = graph(*LAYER)
    for value in model.graph.initializers.values():
        array = value.const_value.numpy().astype(np.float64)
        value.const_value = ir.tensor(array, name=value.name)
        value.dtype = ir.DataType.DOUBLE
    for value in (*model.graph.inputs, *model.graph.outputs):
        value.dtype = ir.DataType.DOUBLE
    assert fuse_skip_layer_norm(model) == 0


@pytest.mark.parametrize(
    ("attributes", "epsilon"),
    [("<axis = -1, epsilon = 0.001>", 1e-3), ("<axis = 2, epsilon = 0.25>", 0.25), ("", 1e-5)],
)
def test_epsilon_is_the_norm_s_and_its_name_tells_where_it_came_from(attributes: str, epsilon: float) -> None:
    norm = NORM.replace("<axis = -1, epsilon = 0.001>", attributes)
    lines = (MATMUL, BIAS, SUM, norm, ONWARD)
    twin = run_on_cpu(graph(*lines), feeds())[0]
    model = graph(*lines)
    model.opset_imports.pop("com.microsoft")

    assert fuse_skip_layer_norm(model) == 1
    fused = model.graph[1]
    assert fused.attributes["epsilon"].as_float() == pytest.approx(epsilon)
    assert fused.name == "n_skip_layer_norm"
    assert [output.name for output in fused.outputs] == ["n", "", "", "s"]
    assert model.opset_imports["com.microsoft"] == 1
    assert psnr(twin, run_on_cpu(model, feeds())[0]) > 120


def test_a_graph_without_norms_is_left_as_it_is() -> None:
    model = graph(MATMUL, BIAS, "y = Add(b, h)")
    model.opset_imports.pop("com.microsoft")
    assert fuse_skip_layer_norm(model) == 0
    assert "com.microsoft" not in model.opset_imports


def test_a_norm_of_another_domain_is_left_alone() -> None:
    model = graph(*LAYER)
    model.graph[3].domain = "com.example"
    assert fuse_skip_layer_norm(model) == 0


@pytest.mark.parametrize("vector", ["bias", "scale", "shift"])
def test_vectors_of_another_length_or_with_two_dimensions_are_left_alone(vector: str) -> None:
    for shape in ((1,), (1, 8)):
        model = graph(*LAYER)
        value = model.graph.initializers[vector]
        value.const_value = ir.tensor(np.ones(shape, np.float32), name=vector)
        value.shape = ir.Shape(shape)
        assert fuse_skip_layer_norm(model) == 0

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from conversions.passes.expand_fused_matmul import expand_fused_matmul
from conversions.passes.simplify import TRANSPOSED
from conversions.passes.weights_as_stored import weights_as_stored
from tests.conversions.graphs_for_tests import psnr, run_on_cpu

STORED = np.random.default_rng(3).standard_normal((5, 3)).astype(np.float32)
FEEDS = {"x": np.random.default_rng(4).standard_normal((2, 7, 3)).astype(np.float32)}


def operators(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


def graph(body: str = "y = MatMul(x, w)") -> ir.Model:
    """A product with a weight without values that is wanted transposed, as ``simplify`` leaves it."""
    text = f"""
    <ir_version: 10, opset_import: ["" : 18, "com.microsoft" : 1]>
    g (float[batch, length, 3] x, float[3, 5] w) => (float[batch, length, n] y) {{ {body} }}
    """
    model = ir.from_proto(onnx.parser.parse_model(text))
    weight = model.graph.inputs.pop()
    weight.metadata_props[TRANSPOSED] = "1"
    model.graph.initializers["w"] = weight
    return model


def with_weight(model: ir.Model) -> ir.Model:
    weight = model.graph.initializers["w"]
    assert weight.shape is not None
    weight.const_value = ir.tensor(STORED.reshape(weight.shape.numpy()), name="w")
    return model


def test_the_weight_is_read_as_it_is_stored() -> None:
    model = graph()
    assert weights_as_stored(model) == 1
    assert operators(model) == ["FusedMatMul"]
    assert TRANSPOSED not in model.graph.initializers["w"].metadata_props
    assert psnr(FEEDS["x"] @ STORED.T, run_on_cpu(with_weight(model), FEEDS)[0]) > 120


def test_a_weight_behind_a_cast_is_read_as_it_is_stored_too() -> None:
    model = graph("c = Cast <to = 1> (w) y = MatMul(x, c)")
    assert weights_as_stored(model) == 1
    assert psnr(FEEDS["x"] @ STORED.T, run_on_cpu(with_weight(model), FEEDS)[0]) > 120


@pytest.mark.parametrize(
    "body",
    [
        "t = Neg(w) y = MatMul(x, t)",
        "m = MatMul(x, w) s = Exp(w) y = MatMul(m, s)",
        "t = Transpose <perm = [0, 2, 1]> (x) y = MatMul(w, t)",
    ],
)
def test_a_weight_with_another_reader_stays_marked(body: str) -> None:
    model = graph(body)
    assert weights_as_stored(model) == 0
    assert TRANSPOSED in model.graph.initializers["w"].metadata_props


@pytest.mark.parametrize("body", ["y = MatMul(x, w)", "c = Cast <to = 1> (w) y = MatMul(x, c)"])
def test_written_out_it_computes_the_same(body: str) -> None:
    model = graph(body)
    weights_as_stored(model)
    assert expand_fused_matmul(model) == 1
    assert "FusedMatMul" not in operators(model)
    assert psnr(FEEDS["x"] @ STORED.T, run_on_cpu(with_weight(model), FEEDS)[0]) > 120


def test_other_products_are_not_written_out() -> None:
    model = graph("y = com.microsoft.FusedMatMul <transB = 1, alpha = 2.0> (x, w)")
    assert expand_fused_matmul(model) == 0


def test_every_marked_weight_is_read_as_it_is_stored_and_no_other() -> None:
    text = """
    <ir_version: 10, opset_import: ["" : 18]>
    g (float[batch, 3] x, float[3, 3] a, float[3, 3] b, float[3, 3] c) => (float[batch, 3] y) {
        s = MatMul(x, a) t = MatMul(s, b) y = MatMul(t, c)
    }
    """
    model = ir.from_proto(onnx.parser.parse_model(text))
    for name in ("a", "b", "c"):
        weight = next(each for each in model.graph.inputs if each.name == name)
        model.graph.inputs.remove(weight)
        model.graph.initializers[name] = weight
        if name != "a":
            weight.metadata_props[TRANSPOSED] = "1"
    assert weights_as_stored(model) == 2
    assert operators(model) == ["MatMul", "FusedMatMul", "FusedMatMul"]
    assert model.opset_imports == {"": 18, "com.microsoft": 1}
    plain = graph("t = Neg(w) y = MatMul(x, t)")
    plain.opset_imports.pop("com.microsoft")
    assert weights_as_stored(plain) == 0
    assert plain.opset_imports == {"": 18}

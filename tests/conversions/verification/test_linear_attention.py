from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from conversions.passes.to_fp16 import to_fp16
from conversions.shape_inference import infer_shapes
from conversions.verification.linear_attention import find_linear_attention
from tests.conversions.graphs_for_tests import psnr, run_by_definition, run_on_cpu

HEAD = '<ir_version: 10, opset_import: ["" : 18]>'
INPUTS = "g (float[b, 8, n] q, float[b, 8, n] k, float[b, 8, n] v) => (float[b, 8, n] y)"
CONSTANTS = (
    "<float tiny = {0.000000000000001}, int64[1] zero = {0}, int64[1] one = {1}, int64[1] eight = {8},"
    " int64[1] nine = {9}, int64 first = {0}, int64[3] same = {0, 9, -1},"
    " int64[6] below = {0, 0, 0, 0, 1, 0}, float filling = {1}>"
)
# As diffusers writes them: with the divisor as one more row of the values, and the form for few tokens.
LINEAR = """
    w = Sigmoid(v) p = Relu(q) r = Relu(k) t = Transpose <perm = [0, 2, 1]> (r) f = Pad (w, below, filling)
    s = MatMul(f, t) h = MatMul(s, p)
    a = Slice(h, zero, eight, one) c = Slice(h, eight, nine, one) e = Add(c, tiny) d = Div(a, e) y = Tanh(d)
"""
QUADRATIC = """
    w = Sigmoid(v) p = Relu(q) r = Relu(k) t = Transpose <perm = [0, 2, 1]> (r) s = MatMul(t, p)
    c = ReduceSum(s, one) e = Add(c, tiny) d = Div(s, e) m = MatMul(w, d) y = Tanh(m)
"""
SOFTMAX = """
    w = Sigmoid(v) t = Transpose <perm = [0, 2, 1]> (k) s = MatMul(q, t) l = Softmax(s) y = MatMul(l, w)
"""
MEAN = """
    w = Relu(q) t = Transpose <perm = [0, 2, 1]> (k) s = MatMul(w, t) c = MatMul(v, t) e = Add(c, tiny)
    d = Div(s, e) y = MatMul(d, v)
"""


def graph(body: str) -> ir.Model:
    model = ir.from_proto(onnx.parser.parse_model(f"{HEAD} {INPUTS} {CONSTANTS} {{ {body} }}"))
    for number, node in enumerate(model.graph):
        node.name = f"n{number}_{node.op_type}"
    infer_shapes(model)
    return model


def operators(body: str) -> list[str]:
    return [entry.operator for entry in find_linear_attention(graph(body))]


def test_it_is_found_from_relu_to_div_and_no_further() -> None:
    products = ["Relu", "Relu", "Transpose", "MatMul"]
    assert operators(LINEAR) == [*products, "MatMul", "Slice", "Slice", "Add", "Div"]
    assert operators(QUADRATIC) == [*products, "ReduceSum", "Add", "Div"]


def test_an_entry_names_its_node() -> None:
    for entry in find_linear_attention(graph(LINEAR)):
        assert entry.layer == entry.node
        assert entry.node.endswith(f"_{entry.operator}")


@pytest.mark.parametrize(
    ("operators_between", "moved"),
    [
        (["Cast"], "u = Cast <to = 1> (h)"),
        (["Reshape"], "u = Reshape(h, same)"),
        (["Split"], "u, z = Split <axis = 2, num_outputs = 2> (h)"),
        (["Unsqueeze", "Gather"], "i = Unsqueeze(h, zero) u = Gather(i, first)"),
        (["Unsqueeze", "Squeeze"], "i = Unsqueeze(h, zero) u = Squeeze(i, zero)"),
        (["Transpose"], "u = Transpose <perm = [0, 1, 2]> (h)"),
    ],
)
def test_the_division_may_be_of_what_was_selected(operators_between: list[str], moved: str) -> None:
    selected = LINEAR.replace("Slice(h", "Slice(u").replace("a = Slice", f"{moved} a = Slice")
    assert operators(selected) == [
        *("Relu", "Relu", "Transpose", "MatMul", "MatMul"),
        *operators_between,
        *("Slice", "Slice", "Add", "Div"),
    ]


def test_other_divisions_and_attentions_are_not() -> None:
    assert operators(SOFTMAX) == operators(MEAN) == []


@pytest.mark.parametrize("body", [LINEAR, QUADRATIC])
def test_kept_so_it_is_right_in_float16_and_otherwise_it_is_not(body: str) -> None:
    random = np.random.default_rng(0)
    tokens = 900
    feeds: dict[str, np.ndarray[Any, Any]] = {
        name: random.normal(0, 6, (1, 8, tokens)).astype(np.float32) for name in "qkv"
    }
    half = {name: value.astype(np.float16) for name, value in feeds.items()}
    twin = run_on_cpu(graph(body), feeds)[0]
    broken, right = graph(body), graph(body)
    to_fp16(broken)

    to_fp16(right, keep={entry.node for entry in find_linear_attention(right)})

    with np.errstate(all="ignore"):
        plain, safe = (run_by_definition(model, half)[0] for model in (broken, right))
    assert not np.isfinite(plain).all() or psnr(twin, plain) < 40
    assert psnr(twin, safe) > 60

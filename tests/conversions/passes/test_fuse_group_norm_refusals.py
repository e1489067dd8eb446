"""Graphs that look like a group normalisation: fused only where the numbers stay the same."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from conversions.passes.fuse_group_norm import DOMAIN, fuse_group_norm
from tests.conversions.graphs_for_tests import psnr, run_by_definition

TEXT = """
<ir_version: 10, opset_import: ["" : 18]>
g (float[2, 8, 3, 5] x) => (float[2, 8, 3, 5] y)
<int64[3] grouped = {0, 4, -1}, int64[4] back = {0, 8, -1, 5}, int64[2] axes = {1, 2}>
{
    image = Abs(x)
    r = Reshape(image, grouped)
    i = InstanceNormalization <epsilon = 0.01> (r, ones, zeros)
    s = Shape(image)
    b = Reshape(i, s)
    m = Mul(b, factor)
    n = Add(m, summand)
    g = Sigmoid(n)
    z = Mul(n, g)
    y = Neg(z)
}
"""
RANDOM = np.random.default_rng(5)
WEIGHTS = {
    "ones": np.ones(4),
    "zeros": np.zeros(4),
    "factor": RANDOM.normal(1, 0.3, (8, 1, 1)),
    "summand": RANDOM.normal(0, 0.3, (8, 1, 1)),
}
IMAGE = {"x": RANDOM.normal(0.5, 2, (2, 8, 3, 5)).astype(np.float32)}


def made(text: str, **changes: np.ndarray) -> ir.Model:
    proto = onnx.parser.parse_model(text)
    for name, array in {**WEIGHTS, **changes}.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array.astype(np.float32), name))
    return ir.from_proto(proto)


def fused(text: str, **changes: np.ndarray) -> tuple[ir.Model, int]:
    """Fuse a graph and demand the same numbers of it."""
    model = made(text, **changes)
    expected = run_by_definition(made(text, **changes), IMAGE)
    count = fuse_group_norm(model)
    for one, other in zip(expected, run_by_definition(model, IMAGE), strict=True):
        assert psnr(one, other) > 100
    assert (DOMAIN in model.opset_imports) is bool(count)
    return model, count


def operators(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


def test_the_pattern_itself_is_fused() -> None:
    model, count = fused(TEXT)
    assert count == 1
    assert operators(model) == ["Abs", "GroupNorm", "Neg"]
    norm = model.graph[1]
    assert norm.name == "i_group_norm"
    assert norm.outputs[0].name == "z"
    assert norm.attributes["epsilon"].as_float() == pytest.approx(0.01)
    kept = TEXT.replace("int64[3] grouped = {0, 4, -1}", "int64[4] grouped = {0, 4, -1, 0}")
    for shape, fits in (("{0, 8, -1, 0}", 1), ("{0, -1, 3, 0}", 0), ("{0, 8, 3, 0}", 0)):
        asked = kept.replace("{0, 8, -1, 5}", shape).replace("Reshape(i, s)", "Reshape(i, back)")
        assert fused(asked)[1] == fits
    plain, count = fused(TEXT.replace(" <epsilon = 0.01>", ""))
    assert count == 1
    assert plain.graph[1].attributes["epsilon"].as_float() == pytest.approx(1e-5)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        # What is the same in another form.
        ("Mul(b, factor)", "Mul(factor, b)"),
        ("Add(m, summand)", "Add(summand, m)"),
        ("Mul(n, g)", "Mul(g, n)"),
        ("Reshape(i, s)", "Reshape(i, whole)"),
        ("{0, 4, -1}", "{2, 4, -1}"),
        ("int64[3] grouped = {0, 4, -1}", "int64[4] grouped = {0, 4, -1, 5}"),
        # What is not.
        ("Shape(image)", "Shape <start = 0, end = 4> (image)"),
        ("Shape(image)", "Shape(x)"),
        ("Reshape(i, s)", "Reshape(i, other)"),
        ("g = Sigmoid(n)", "g = Sigmoid(m)"),
        ("g = Sigmoid(n)", "g = Tanh(n)"),
        ("z = Mul(n, g)", "z = Add(n, g)"),
        ("z = Mul(n, g)", "z = Mul(n, n)"),
        ("z = Mul(n, g)", "z = Mul(m, g)"),
        ("y = Neg(z)", "y = Add(z, g)"),
        ("y = Neg(z)", "y = Add(z, n)"),
        ("y = Neg(z)", "y = Add(z, m)"),
        ("y = Neg(z)", "y = Add(z, b)"),
        ("y = Neg(z)", "w = Add(z, factor) y = Neg(w)"),
        ("Mul(b, factor)", "Div(b, factor)"),
        ("Add(m, summand)", "Sub(m, summand)"),
        ("Mul(b, factor)", "Mul(b, b)"),
        ("Mul(b, factor)", "Mul(b, x)"),
        ("Mul(b, factor)", "Mul(b, single)"),
        ("(r, ones, zeros)", "(r, factors4, zeros)"),
        ("(r, ones, zeros)", "(r, ones, factors4)"),
    ],
)
def test_another_form_has_the_same_numbers_whatever_is_fused(old: str, new: str) -> None:
    assert TEXT.count(old) == 1
    text = TEXT.replace(old, new).replace(
        "int64[2] axes",
        "int64[4] whole = {2, 8, 3, 5}, int64[4] other = {2, 8, 5, 3}, int64[2] axes",
    )
    if new == "Reshape(i, other)":  # a turned image: the graph's end must have its shape
        text = text.replace("(float[2, 8, 3, 5] y)", "(float[2, 8, 5, 3] y)")
    changes = {"single": np.full((1, 1, 1), 0.5), "factors4": np.array([1.0, 2, 3, 4])}
    _, count = fused(text, **changes)
    # The first ones are the pattern; a sum or a SiLU beside it leaves the normalisation itself.
    same = {
        *("Mul(factor, b)", "Add(summand, m)", "Mul(g, n)", "Reshape(i, whole)"),
        *("g = Tanh(n)", "z = Add(n, g)", "z = Mul(n, n)", "y = Add(z, g)", "y = Add(z, n)"),
        "int64[4] grouped = {0, 4, -1, 5}",
    }
    never = {
        *("Reshape(i, other)", "g = Sigmoid(m)", "z = Mul(m, g)", "y = Add(z, m)", "y = Add(z, b)"),
        *("w = Add(z, factor) y = Neg(w)", "Div(b, factor)", "Sub(m, summand)", "Mul(b, b)", "Mul(b, x)"),
        *("Mul(b, single)", "(r, factors4, zeros)", "(r, ones, factors4)"),
        "Shape <start = 0, end = 4> (image)",
        "Shape(x)",
    }
    if new in never:
        assert count == 0
    elif new in same and "grouped" not in new:
        assert count == 1


@pytest.mark.parametrize("name", ["ones", "zeros"])
def test_a_scale_or_a_shift_that_is_computed_is_not_known_to_be_neutral(name: str) -> None:
    text = TEXT.replace("i = Instance", f"known = Identity({name}) i = Instance").replace(
        "(r, ones, zeros)", "(r, ones, zeros)".replace(name, "known")
    )
    assert fused(text)[1] == 0


@pytest.mark.parametrize("name", ["factor", "summand"])
def test_weights_of_another_shape_are_no_weights_of_channels(name: str) -> None:
    _, count = fused(TEXT, **{name: RANDOM.normal(1, 0.3, (8, 3, 5))})
    assert count == 0
    _, count = fused(TEXT, **{name: RANDOM.normal(1, 0.3, (1, 8, 1, 1))})
    assert count == 0


def test_weights_behind_a_view_may_have_other_readers() -> None:
    text = TEXT.replace("m = Mul(b, factor)", "f = Unsqueeze(factor, axes) m = Mul(b, f)").replace(
        "y = Neg(z)",
        "t = Transpose <perm = [0, 3, 2, 1]> (z) u = Add(t, row) y = Transpose <perm = [0, 3, 2, 1]> (u)",
    )
    weights = {"factor": RANDOM.normal(1, 0.3, 8), "row": RANDOM.normal(1, 0.3, 8)}
    model, count = fused(text, **weights)
    assert count == 1
    assert "Unsqueeze" not in operators(model)
    text = text.replace("Add(t, row)", "Add(t, factor)")
    assert fused(text, **weights)[1] == 1


def test_two_patterns_are_two_operators() -> None:
    body = TEXT[TEXT.index("{\n") + 2 : TEXT.index("    y = Neg")]
    again = body.replace("Abs(x)", "Abs(z)")
    for name in ("image", "r", "i", "s", "b", "m", "n", "g", "z"):
        again = again.replace(f"    {name} =", f"    {name}2 =")
        for end in (",", ")"):
            again = again.replace(f"({name}{end}", f"({name}2{end}").replace(
                f", {name}{end}", f", {name}2{end}"
            )
    again = again.replace("Abs(z2)", "Abs(z)").replace("factor", "factor2").replace("summand", "summand2")
    text = TEXT.replace("    y = Neg(z)", f"{again}    y = Neg(z2)")
    model, count = fused(text, factor2=WEIGHTS["factor"] * 2, summand2=WEIGHTS["summand"] - 1)
    assert count == 2
    assert operators(model) == ["Abs", "GroupNorm", "Abs", "GroupNorm", "Neg"]

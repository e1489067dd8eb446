"""Graphs at fixed sizes: which shapes follow, what is folded, and what is left alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from conversions.errors import ConversionError
from conversions.shape_inference import (
    FOLD_LIMIT,
    fix_sizes,
    fold_constants,
    infer_shapes,
    known_value,
    static_shape,
)


def graph(body: str, inputs: str = "float[batch, 4, height] x", outputs: str = "y") -> ir.Model:
    found = ", ".join(f"float[n{place}] {name}" for place, name in enumerate(outputs.split()))
    text = f"""
    <ir_version: 10, opset_import: ["" : 18, "com.microsoft" : 1]>
    g ({inputs}) => ({found})
    <int64[1] one = {{1}}, int64[2] two = {{2, 3}}, float[2] numbers = {{0.5, 1.5}}> {{ {body} }}
    """
    model = ir.from_proto(onnx.parser.parse_model(text))
    for value in model.graph.outputs:
        value.shape = None
    return model


def operators(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


def value(model: ir.Model, name: str) -> ir.Value:
    every = [out for node in model.graph for out in node.outputs]
    return next(each for each in [*every, *model.graph.initializers.values()] if each.name == name)


def constant(model: ir.Model, name: str) -> Any:
    found = known_value(model.graph.initializers[name])
    assert found is not None
    return found.tolist()


def test_a_graph_at_its_sizes_has_all_shapes_and_the_given_one_stays() -> None:
    model = graph("s = Shape(x) a = Reshape(x, flat) y = Relu(a)", "float[batch, 4, height] x, int64[2] flat")
    fixed = fix_sizes(model, {"batch": 2, "height": 6, "unused": 1})
    assert static_shape(fixed.graph.inputs[0]) == (2, 4, 6)
    assert constant(fixed, "s") == [2, 4, 6]
    assert operators(fixed) == ["Reshape", "Relu"]
    assert operators(model) == ["Shape", "Reshape", "Relu"]
    assert static_shape(model.graph.inputs[0]) is None


def test_a_size_that_was_not_given_is_named() -> None:
    with pytest.raises(ConversionError) as caught:
        fix_sizes(graph("y = Relu(x)"), {"batch": 2})
    assert caught.value.code == "placement.size_missing"
    assert caught.value.message.startswith("Input 'x' has the free dimension 'height'")


def test_a_size_that_contradicts_the_graph_is_said() -> None:
    model = graph("y = Add(x, numbers)")
    with pytest.raises(ConversionError, match=r"\(Add\) has no valid shape at these sizes") as caught:
        fix_sizes(model, {"batch": 2, "height": 7})
    assert caught.value.code == "placement.shape"


def test_what_shapes_decide_is_folded_through_the_graph() -> None:
    body = """
        s = Shape(x)
        h = Gather(s, two)
        d = Mul(h, two)
        n = Size(x)
        c = Cast <to = 1> (d)
        y = Add(c, c)
        z = Identity(n)
    """
    model = graph(body, "float[2, 4, 6, 5] x", "y z")
    assert fold_constants(model) == 7
    assert operators(model) == []
    assert constant(model, "d") == [12, 15]
    assert constant(model, "y") == [24.0, 30.0]
    assert constant(model, "z") == 240
    assert [each.name for each in model.graph.outputs] == ["y", "z"]
    kept = model.graph.initializers["d"]
    assert (kept.dtype, static_shape(kept)) == (ir.DataType.INT64, (2,))


@pytest.mark.parametrize(
    ("attributes", "dims"),
    [("", [2, 4, 6]), ("<start = 1>", [4, 6]), ("<end = -1>", [2, 4]), ("<start = 1, end = 2>", [4])],
)
def test_a_part_of_a_shape(attributes: str, dims: list[int]) -> None:
    model = graph(f"y = Shape {attributes} (x)", "float[2, 4, 6] x")
    assert fold_constants(model) == 1
    assert constant(model, "y") == dims


def test_known_dimensions_of_a_shape_with_free_ones_are_enough() -> None:
    model = graph("y = Shape <start = 1, end = 2> (x) z = Shape(x) n = Size(x)", outputs="y z n")
    assert fold_constants(model) == 1
    assert constant(model, "y") == [4]
    assert operators(model) == ["Shape", "Size"]


@pytest.mark.parametrize(
    "body",
    [
        "y = RandomNormal <shape = [2]> ()",
        "y = RandomUniform <shape = [2]> ()",
        "y = RandomNormalLike(numbers)",
        "y = RandomUniformLike(numbers)",
        "y = Bernoulli(numbers)",
        "y = com.microsoft.Gelu(numbers)",
        "y = ConstantOfShape <value = float[1] {1}> (large)",
    ],
)
def test_chance_other_domains_and_large_results_are_not_folded(body: str) -> None:
    model = graph(body)
    large = ir.Value(name="large", const_value=ir.tensor(np.array([FOLD_LIMIT + 1]), name="large"))
    large.shape, large.dtype = ir.Shape([1]), ir.DataType.INT64
    for node in model.graph:
        for place, given in enumerate(node.inputs):
            if given is not None and given.name == "large":
                node.replace_input_with(place, large)
    model.graph.initializers["large"] = large
    assert fold_constants(model) == 0
    assert len(operators(model)) == 1


def test_results_up_to_the_limit_are_folded() -> None:
    model = graph("y = ConstantOfShape(size)")
    size = ir.Value(name="size", const_value=ir.tensor(np.array([FOLD_LIMIT]), name="size"))
    size.shape, size.dtype = ir.Shape([1]), ir.DataType.INT64
    next(iter(model.graph)).replace_input_with(0, size)
    assert fold_constants(model) == 1
    assert len(constant(model, "y")) == FOLD_LIMIT


def test_several_outputs_are_folded_and_branches_are_not() -> None:
    model = graph("a, b = Split <num_outputs = 2> (numbers) y = Add(a, b)")
    assert fold_constants(model) == 2
    assert constant(model, "y") == [2.0]
    branch = "y = If(c) <then_branch = t () => (float[2] p) { p = Identity(numbers) },"
    branch += " else_branch = e () => (float[2] q) { q = Neg(numbers) }>"
    kept = graph(f"c = Equal(one, one) d = Squeeze(c) {branch.replace('(c)', '(d)')}")
    assert fold_constants(kept) == 2
    assert operators(kept) == ["If"]


def test_only_small_constants_are_known(tmp_path: Path) -> None:
    def made(tensor: Any) -> ir.Value:
        return ir.Value(name="v", const_value=tensor)

    assert known_value(None) is None
    assert known_value(ir.Value(name="v")) is None
    edge = known_value(made(ir.tensor(np.zeros(FOLD_LIMIT), name="v")))
    assert edge is not None
    assert edge.shape == (FOLD_LIMIT,)
    assert known_value(made(ir.tensor(np.zeros(FOLD_LIMIT + 1), name="v"))) is None
    (tmp_path / "data").write_bytes(bytes(8))
    outside = ir.ExternalTensor(
        "data", 0, 8, ir.DataType.FLOAT, shape=ir.Shape([2]), name="v", base_dir=tmp_path
    )
    assert known_value(made(outside)) is None


def test_a_static_shape_has_numbers_only() -> None:
    assert static_shape(ir.Value(shape=ir.Shape([2, 3]))) == (2, 3)
    assert static_shape(ir.Value(shape=ir.Shape([]))) == ()
    assert static_shape(ir.Value(shape=ir.Shape([2, "n"]))) is None
    assert static_shape(ir.Value(shape=None)) is None


def test_types_and_shapes_are_written_on_every_value_and_nothing_is_folded() -> None:
    body = """
        s = Shape(x)
        a = Cast <to = 10> (x)
        b = com.microsoft.Gelu(a)
        c = SimplifiedLayerNormalization(b, numbers)
        d = com.example.Unknown(c)
        e = Transpose <perm = [0, 2, 1]> (b)
        y = Concat <axis = 1> (e, e)
    """
    model = graph(body)
    infer_shapes(model)
    assert len(operators(model)) == 7
    half = ir.DataType.FLOAT16
    for name in ("a", "b", "c"):
        assert (value(model, name).dtype, value(model, name).shape) == (half, ["batch", 4, "height"])
    assert (value(model, "d").dtype, value(model, "d").shape) == (None, None)
    assert value(model, "e").shape == ["batch", "height", 4]
    assert value(model, "y").dtype == half
    assert value(model, "s").shape == [3]


def test_a_shape_that_is_there_gives_way_to_numbers_only() -> None:
    model = graph("a = Concat <axis = 2> (x, x) y = Relu(x)")
    value(model, "a").shape = ir.Shape(["batch", 4, "2*height"])
    infer_shapes(model)
    assert value(model, "a").shape == ["batch", 4, "2*height"]
    fixed = fix_sizes(model, {"batch": 2, "height": 3})
    assert static_shape(value(fixed, "a")) == (2, 4, 6)


def test_sequences_keep_their_type() -> None:
    model = graph("a = SequenceConstruct(x, x) y = ConcatFromSequence <axis = 0> (a)", "float[2, 3] x")
    infer_shapes(model)
    assert isinstance(value(model, "a").type, ir.SequenceType)
    assert value(model, "y").dtype == ir.DataType.FLOAT
    assert fold_constants(model) == 0

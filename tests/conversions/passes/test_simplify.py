"""What no model needs goes, what a model computes stays: every rule on graphs as the exporter writes them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx.reference import ReferenceEvaluator

from conversions.graphs import find
from conversions.passes.simplify import TRANSPOSED, simplify
from tests.shipped import SHIPPED

pytestmark = pytest.mark.torch  # onnxscript is there with it


def parsed(text: str, **weights: tuple[int, ...]) -> ir.Model:
    """Parse a graph; its weights have no values."""
    model = ir.from_proto(onnx.parser.parse_model('<ir_version: 10, opset_import: ["" : 18]> ' + text))
    for name, shape in weights.items():
        value = next(
            each for node in model.graph for each in node.inputs if each is not None and each.name == name
        )
        value.shape, value.type = ir.Shape(shape), ir.TensorType(ir.DataType.FLOAT)
        model.graph.initializers.add(value)
    return model


def simplified(text: str, **weights: tuple[int, ...]) -> ir.Model:
    model = parsed(text, **weights)
    simplify(model)
    return model


def operators(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


def demand_same(text: str, **inputs: Any) -> ir.Model:
    """Simplify a graph and demand the same numbers of it."""
    whole = onnx.parser.parse_model('<ir_version: 10, opset_import: ["" : 18]> ' + text)
    model = simplified(text)
    for one, other in zip(
        ReferenceEvaluator(whole).run(None, inputs),
        ReferenceEvaluator(ir.to_proto(model)).run(None, inputs),
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)
    return model


X = np.arange(6, dtype=np.float32).reshape(2, 3)


def test_constants_are_computed_and_become_initializers() -> None:
    model = demand_same(
        "g (float[2, 3] x) => (float[2, 3] y) <float[3] a = {1, 2, 3}> "
        "{ b = Constant <value_floats = [4.0, 5.0, 6.0]> () c = Add(a, b) y = Add(x, c) }",
        x=X,
    )
    assert operators(model) == ["Add"]
    (constant,) = model.graph.initializers.values()
    assert constant.const_value is not None
    assert constant.const_value.numpy().tolist() == [5, 7, 9]


def test_constants_of_a_few_thousand_numbers_are_computed_and_larger_ones_are_not() -> None:
    for count, left in ((4_000, ["Add"]), (5_000, ["Neg", "Add"])):
        model = parsed(
            f"g (float[{count}] x) => (float[{count}] y) {{ a = Neg(big) y = Add(x, a) }}", big=(count,)
        )
        big = model.graph.initializers["big"]
        big.const_value = ir.tensor(np.ones(count, np.float32), name="big")
        simplify(model)
        assert operators(model) == left


def test_shipped_graphs_hold_the_mark_of_transposed_weights() -> None:
    (_, shipped), *_ = SHIPPED
    model = find(shipped.kind, shipped.config, None)
    assert model is not None
    assert any(TRANSPOSED in value.metadata_props for value in model.graph.initializers.values())


def test_a_weight_that_is_only_wanted_transposed_is_stored_that_way() -> None:
    model = simplified(
        "g (float[2, 3] x) => (float[2, 4] y) { t = Transpose <perm = [1, 0]> (w) y = MatMul(x, t) }",
        w=(4, 3),
    )
    assert operators(model) == ["MatMul"]
    weight = model.graph.initializers["w"]
    assert weight.shape == ir.Shape([3, 4])
    assert weight.metadata_props == {TRANSPOSED: "1"}


def test_a_weight_that_is_also_wanted_as_it_is_stays() -> None:
    model = simplified(
        "g (float[3, 3] x) => (float[3, 3] y) "
        "{ t = Transpose <perm = [1, 0]> (w) a = MatMul(x, t) y = Add(a, w) }",
        w=(3, 3),
    )
    assert operators(model) == ["Transpose", "MatMul", "Add"]
    assert TRANSPOSED not in model.graph.initializers["w"].metadata_props


def test_only_matrices_and_only_weights_are_transposed() -> None:
    model = simplified(
        "g (float[2, 3] x) => (float[3, 2] y, float[4, 3, 2] z) "
        "{ y = Transpose <perm = [1, 0]> (x) t = Transpose <perm = [2, 1, 0]> (w) z = Relu(t) }",
        w=(2, 3, 4),
    )
    assert operators(model) == ["Transpose", "Transpose", "Relu"]
    assert model.graph.initializers["w"].shape == ir.Shape([2, 3, 4])


def test_a_weight_with_more_axes_of_length_one_is_stored_with_them() -> None:
    model = simplified(
        "g (float[1, 4, 2, 2] x) => (float[1, 4, 2, 2] y) <int64[2] axes = {1, 2}> "
        "{ u = Unsqueeze(w, axes) y = Mul(x, u) }",
        w=(4,),
    )
    assert operators(model) == ["Mul"]
    assert model.graph.initializers["w"].shape == ir.Shape([4, 1, 1])


def test_a_weight_with_two_readers_and_constants_keep_their_axes() -> None:
    model = simplified(
        "g (float[4, 4] x) => (float[4, 4] y) <int64[1] axes = {1}> "
        "{ u = Unsqueeze(w, axes) a = Mul(x, u) y = Add(a, w) }",
        w=(4,),
    )
    assert operators(model) == ["Unsqueeze", "Mul", "Add"]
    assert model.graph.initializers["w"].shape == ir.Shape([4])


def test_two_unsqueezes_in_a_row_become_one() -> None:
    model = demand_same(
        "g (float[2, 3] x) => (float[2, 3, 1, 1] y) <int64[1] first = {2}, int64[1] second = {3}> "
        "{ a = Unsqueeze(x, first) y = Unsqueeze(a, second) }",
        x=X,
    )
    assert operators(model) == ["Unsqueeze"]


@pytest.mark.parametrize(
    ("first", "second", "shape"),
    [("2", "2", "2, 3, 1, 1"), ("1", "0", "1, 2, 1, 3"), ("-1", "3", "2, 3, 1, 1"), ("1", "1", "2, 1, 1, 3")],
)
def test_axes_that_would_change_their_places_stay_apart(first: str, second: str, shape: str) -> None:
    model = demand_same(
        f"g (float[2, 3] x) => (float[{shape}] y) "
        f"<int64[1] first = {{{first}}}, int64[1] second = {{{second}}}> "
        "{ a = Unsqueeze(x, first) y = Unsqueeze(a, second) }",
        x=X,
    )
    assert operators(model) == ["Unsqueeze", "Unsqueeze"]


def test_an_unsqueeze_that_others_read_stays() -> None:
    model = demand_same(
        "g (float[2, 3] x) => (float[2, 3, 1, 1] y, float[2, 3, 1] z) "
        "<int64[1] first = {2}, int64[1] second = {3}> "
        "{ a = Unsqueeze(x, first) y = Unsqueeze(a, second) z = Relu(a) }",
        x=X,
    )
    assert operators(model).count("Unsqueeze") == 2


@pytest.mark.parametrize(("operator", "constant"), [("Div", 1.0), ("Mul", 1.0), ("Add", 0.0)])
def test_an_operator_that_returns_its_input_goes(operator: str, constant: float) -> None:
    for number, kept in ((constant, False), (constant + 0.5, True)):
        model = demand_same(
            f"g (float[2, 3] x) => (float[2, 3] y) <float[1] c = {{{number}}}> "
            f"{{ b = Exp(x) a = {operator}(b, c) y = Neg(a) }}",
            x=X,
        )
        assert (operator in operators(model)) is kept
    # On the left, with more numbers, or as the graph's output it stays.
    for text in (
        f"<float[1] c = {{{constant}}}> {{ a = {operator}(c, x) y = Neg(a) }}",
        f"<float[3] c = {{{constant}, {constant}, {constant}}}> {{ a = {operator}(x, c) y = Neg(a) }}",
        f"<float[1] c = {{{constant}}}> {{ y = {operator}(x, c) }}",
    ):
        assert operator in operators(demand_same(f"g (float[2, 3] x) => (float[2, 3] y) {text}", x=X + 1))
    other = demand_same(
        "g (float[2, 3] x) => (float[2, 3] y) <float[1] c = {0}> { a = Sub(x, c) y = Neg(a) }", x=X
    )
    assert "Sub" in operators(other)


def test_casts_to_the_type_of_the_same_and_identities_go() -> None:
    model = demand_same(
        "g (float[2, 3] x) => (float[2, 3] y) <float[1] c = {2}> "
        "{ k = CastLike(c, x) i = Identity(x) a = Mul(i, k) y = Cast <to = 1> (a) }",
        x=X,
    )
    assert set(operators(model)) <= {"Mul", "Cast", "Identity"}
    assert "CastLike" not in operators(model)
    assert len(model.graph) <= 2


def test_a_cast_to_the_type_of_a_value_goes_though_the_type_is_not_said() -> None:
    model = parsed(
        "g (float[2, 3] x, float[2, 3] z) => (float[2, 3] y) { e = Exp(x) k = CastLike(e, z) y = Neg(k) }"
    )
    simplify(model)
    assert operators(model) == ["Exp", "Neg"]


def test_equal_nodes_become_one_and_nodes_without_a_reader_go() -> None:
    model = demand_same(
        "g (float[2, 3] x) => (float[2, 3] y) { a = Exp(x) b = Exp(x) unused = Sin(x) y = Mul(a, b) }",
        x=X,
    )
    assert sorted(operators(model)) == ["Exp", "Mul"]
    with_weights = simplified("g (float[2] x) => (float[2] y) { u = Add(x, w) y = Neg(x) }", w=(2,))
    assert operators(with_weights) == ["Neg"]
    assert "w" not in with_weights.graph.initializers


def test_a_weight_that_is_transposed_twice_is_stored_transposed_once() -> None:
    model = simplified(
        """
        g (float[2, 3] x) => (float[2, 4] y)
        {
            t = Transpose <perm = [1, 0]> (w)
            s = Transpose <perm = [1, 0]> (w)
            a = MatMul(x, t)
            b = Neg(x)
            c = MatMul(b, s)
            y = Add(a, c)
        }
        """,
        w=(4, 3),
    )
    assert sorted(operators(model)) == ["Add", "MatMul", "MatMul", "Neg"]
    assert model.graph.initializers["w"].shape == (3, 4)
    assert TRANSPOSED in model.graph.initializers["w"].metadata_props

"""GroupNorm in operators that ONNX Runtime's CPU provider has, against its formula."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from conversions.errors import ConversionError
from conversions.passes.expand_group_norm import expand_group_norm
from tests.conversions.graphs_for_tests import group_norm, psnr, run_on_cpu

RANDOM = np.random.default_rng(9)
IMAGE = RANDOM.normal(0.5, 2.0, (2, 8, 3, 5)).astype(np.float32)
FACTOR = RANDOM.normal(1.0, 0.3, 8).astype(np.float32)
SUMMAND = RANDOM.normal(0.0, 0.3, 8).astype(np.float32)
USUAL = "channels_last = 0, groups = 4, epsilon = 0.01, activation = 0"


def graph(attributes: str = USUAL, *, image: str = "float", operator: str = "GroupNorm") -> ir.Model:
    text = f"""
    <ir_version: 10, opset_import: ["" : 18, "com.microsoft" : 1]>
    g ({image}[batch, 8, height, width] x) => ({image}[batch, 8, height, width] y) {{
        t = Neg(x)
        y = com.microsoft.{operator} <{attributes}> (t, factor, summand)
    }}
    """
    model = ir.from_proto(onnx.parser.parse_model(text))
    (node,) = (each for each in model.graph if each.op_type == operator)
    node.name = "norm"
    for place, (name, numbers) in enumerate((("factor", FACTOR), ("summand", SUMMAND)), start=1):
        value = ir.Value(name=name, const_value=ir.tensor(numbers, name=name))
        value.shape, value.type = ir.Shape(numbers.shape), ir.TensorType(ir.DataType.FLOAT)
        model.graph.initializers[name] = value
        node.replace_input_with(place, value)
    return model


def expected(image: Any, *, groups: int = 4, epsilon: float = 0.01, activation: int = 0) -> Any:
    return group_norm(-image, FACTOR, SUMMAND, activation, 0, epsilon, groups)  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("activation", [0, 1])
@pytest.mark.parametrize("groups", [1, 4, 8])
@pytest.mark.parametrize("epsilon", [0.00001, 0.5])
def test_the_same_numbers_come_out(activation: int, groups: int, epsilon: float) -> None:
    attributes = f"channels_last = 0, groups = {groups}, epsilon = {epsilon}, activation = {activation}"
    model = graph(attributes)
    assert expand_group_norm(model) == 1
    assert {node.domain for node in model.graph} == {""}
    assert model.graph.outputs[0].name == "y"
    (found,) = run_on_cpu(model, {"x": IMAGE})
    assert psnr(expected(IMAGE, groups=groups, epsilon=epsilon, activation=activation), found) > 110


def test_what_is_not_said_is_as_the_operator_has_it() -> None:
    model = graph("channels_last = 0, groups = 4")
    expand_group_norm(model)
    (norm,) = (node for node in model.graph if node.op_type == "InstanceNormalization")
    assert norm.attributes.get_float("epsilon") == pytest.approx(1e-5)
    assert "Sigmoid" not in [node.op_type for node in model.graph]


@pytest.mark.parametrize("typed", [True, False])
def test_weights_in_float32_are_cast_to_the_image_s_type(typed: bool) -> None:
    model = graph(image="float16")
    if typed:
        for value in (out for node in model.graph for out in node.outputs):
            value.type = ir.TensorType(ir.DataType.FLOAT16)
    assert expand_group_norm(model) == 1
    assert [node.op_type for node in model.graph].count("Cast") == 2
    (found,) = run_on_cpu(model, {"x": IMAGE.astype(np.float16)})
    assert found.dtype == np.float16
    assert psnr(expected(IMAGE), found.astype(np.float32)) > 50
    plain = graph()
    expand_group_norm(plain)
    assert "Cast" not in [node.op_type for node in plain.graph]


def test_other_operators_stay() -> None:
    other = graph(operator="SkipGroupNorm")
    assert expand_group_norm(other) == 0
    plain = graph()
    (node,) = (each for each in plain.graph if each.op_type == "GroupNorm")
    node.domain = "com.example"
    assert expand_group_norm(plain) == 0


@pytest.mark.parametrize(
    ("attributes", "said"),
    [
        ("channels_last = 1, groups = 4", "channels-last GroupNorm"),
        ("groups = 4", "channels-last GroupNorm"),
        ("channels_last = 0, groups = 0", "GroupNorm without weights"),
        ("channels_last = 0", "GroupNorm without weights"),
    ],
)
def test_a_form_that_is_never_written_is_refused(attributes: str, said: str) -> None:
    with pytest.raises(ConversionError, match=f"^'norm' is a {said}, which cannot be expanded") as caught:
        expand_group_norm(graph(attributes))
    assert caught.value.code == "graph.group_norm"


@pytest.mark.parametrize("place", [1, 2])
def test_a_norm_that_lacks_a_weight_is_refused(place: int) -> None:
    model = graph()
    (node,) = (each for each in model.graph if each.op_type == "GroupNorm")
    node.replace_input_with(place, None)
    with pytest.raises(ConversionError, match="GroupNorm without weights"):
        expand_group_norm(model)


def test_weights_without_a_shape_are_refused() -> None:
    model = graph()
    model.graph.initializers["factor"].shape = None
    with pytest.raises(ConversionError, match="GroupNorm without weights"):
        expand_group_norm(model)

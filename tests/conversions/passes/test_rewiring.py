"""What passes have in common: values that take the place of others, biases, only readers, new nodes."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from conversions.passes.rewiring import NodeWriter, biased, only_reader, take_place
from tests.conversions.graphs_for_tests import run_on_cpu


def graph(body: str, outputs: str = "float[2] y") -> ir.Model:
    text = f"""
    <ir_version: 10, opset_import: ["" : 18, "com.microsoft" : 1]>
    g (float[2] x) => ({outputs}) <float[2] b = {{1, 2}}, float[2] c = {{3, 4}}, float s = {{5}}> {{ {body} }}
    """
    return ir.from_proto(onnx.parser.parse_model(text))


def value(model: ir.Model, name: str) -> ir.Value:
    return next(out for node in model.graph for out in node.outputs if out.name == name)


def names(found: tuple[ir.Value, ir.Value] | None) -> tuple[str | None, ...] | None:
    return None if found is None else tuple(each.name for each in found)


@pytest.mark.parametrize("inputs", ["x, b", "b, x"])
def test_a_bias_is_told_from_what_it_is_added_to(inputs: str) -> None:
    model = graph(f"t = Add({inputs}) y = Exp(t)")
    assert names(biased(value(model, "t"))) == ("x", "b")


@pytest.mark.parametrize(
    ("body", "outputs"),
    [
        ("t = Mul(x, b) y = Exp(t)", "float[2] y"),
        ("t = com.microsoft.Add(x, b) y = Exp(t)", "float[2] y"),
        ("t = Add(x, x) y = Exp(t)", "float[2] y"),
        ("t = Add(b, c) y = Exp(t)", "float[2] y"),
        ("t = Add(x, s) y = Exp(t)", "float[2] y"),
        ("t = Add(x, b) y = Mul(t, t)", "float[2] y"),
        ("t = Add(x, b) u = Exp(t) y = Mul(t, u)", "float[2] y"),
        ("t = Add(x, b) y = Exp(t)", "float[2] y, float[2] t"),
    ],
)
def test_other_sums_have_no_bias(body: str, outputs: str) -> None:
    assert biased(value(graph(body, outputs), "t")) is None


def test_what_no_node_makes_has_no_bias() -> None:
    model = graph("y = Exp(x)")
    assert biased(None) is None
    assert biased(model.graph.inputs[0]) is None
    assert biased(model.graph.initializers["b"]) is None


def test_the_only_reader_of_a_value_is_found_by_its_operator() -> None:
    once, twice = graph("t = Exp(x) y = Mul(t, t)"), graph("t = Exp(x) u = Abs(t) y = Mul(u, t)")
    reader = only_reader(value(once, "t"), "Mul")
    assert reader is not None
    assert reader.op_type == "Mul"
    assert only_reader(value(once, "t"), "Add") is None
    assert only_reader(value(twice, "t"), "Mul") is None
    assert only_reader(value(twice, "t"), "Abs") is None
    output = graph("t = Exp(x) y = Abs(t)", "float[2] y, float[2] t")
    assert only_reader(value(output, "t"), "Abs") is None
    assert only_reader(value(output, "y"), "Abs") is None


def test_a_value_in_another_s_place_has_its_name_readers_and_outputs() -> None:
    model = graph("t = Exp(x) u = Abs(t) y = Mul(u, t)", "float[2] y, float[2] t")
    old = value(model, "t")
    writer = NodeWriter(model.graph, "p")
    assert old.producer() is not None
    writer.start(old.producer())  # type: ignore[arg-type]
    new = writer.add("Neg", model.graph.inputs[0])
    kind, shape = old.type, old.shape
    take_place(new, old)
    assert (new.name, new.type, new.shape, old.name) == ("t", kind, shape, "t_replaced")
    assert not old.uses()
    assert model.graph.outputs[1] is new
    model.graph.remove(old.producer(), safe=True)  # type: ignore[arg-type]
    product, same = run_on_cpu(model, {"x": np.array([2.0, -3.0], np.float32)})
    assert product.tolist() == [-4.0, 9.0]
    assert same.tolist() == [-2.0, 3.0]


def test_new_nodes_are_named_after_the_one_they_are_written_before() -> None:
    model = graph("t = Exp(x) y = Abs(t)")
    first, second = list(model.graph)
    first.name, second.name = "first", ""
    writer = NodeWriter(model.graph, "pass")
    with pytest.raises(RuntimeError, match=r"start\(\) was not called"):
        writer.add("Neg", model.graph.inputs[0])
    written = []
    for before, name in ((first, ""), (second, ""), (second, "given")):
        writer.start(before, name)
        for _ in range(2):
            made = writer.add("Gemm", model.graph.inputs[0], None, alpha=2.0)
            node = made.producer()
            assert node is not None
            assert (node.name, node.attributes.get_float("alpha")) == (made.name, 2.0)
            assert list(node.inputs) == [model.graph.inputs[0], None]
            written.append(made.name)
    assert written == ["first/1", "first/2", "y/1", "y/2", "given/1", "given/2"]
    order = [node.outputs[0].name for node in model.graph]
    assert order == ["first/1", "first/2", "t", "y/1", "y/2", "given/1", "given/2", "y"]


def test_equal_constants_are_one_and_others_are_not() -> None:
    model = graph("y = Exp(x)")
    writer = NodeWriter(model.graph, "pass")
    one = writer.constant([1, 2])
    assert writer.constant([1, 2]) is one
    assert writer.constant(np.array([1, 2])) is one
    others = [writer.constant([1, 2], np.int32), writer.constant([[1, 2]]), writer.constant([2, 1])]
    assert [each.name for each in (one, *others)] == [f"pass_constant_{place}" for place in range(4)]
    assert [each.dtype for each in (one, others[0])] == [ir.DataType.INT64, ir.DataType.INT32]
    assert others[1].shape == [1, 2]
    for each, numbers in zip((one, *others), ([1, 2], [1, 2], [[1, 2]], [2, 1]), strict=True):
        assert model.graph.initializers[str(each.name)] is each
        assert each.const_value is not None
        assert each.const_value.name == each.name
        assert each.const_value.numpy().tolist() == numbers

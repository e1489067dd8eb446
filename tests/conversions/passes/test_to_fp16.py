"""Which numbers of a graph become float16, and where float32 stays."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from conversions.passes.to_fp16 import to_fp16

HALF, FLOAT = ir.DataType.FLOAT16, ir.DataType.FLOAT


def parsed(text: str, *weights: tuple[str, tuple[int, ...]]) -> ir.Model:
    """Parse a graph; its weights have no values."""
    model = ir.from_proto(onnx.parser.parse_model('<ir_version: 10, opset_import: ["" : 18]> ' + text))
    for name, shape in weights:
        value = next(
            each for node in model.graph for each in node.inputs if each is not None and each.name == name
        )
        value.shape, value.type = ir.Shape(shape), ir.TensorType(FLOAT)
        model.graph.initializers.add(value)
    for node in model.graph:
        for output in node.outputs:
            if output.dtype is None and node.op_type not in ("Shape", "Greater", "ArgMax"):
                output.dtype = FLOAT
    return model


def operators(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


def test_weights_inputs_and_outputs_become_float16() -> None:
    model = parsed("g (float[2, 3] x, int64[2] n) => (float[2, 3] y) { y = Add(x, w) }", ("w", (2, 3)))
    to_fp16(model)
    assert operators(model) == ["Add"]
    assert [each.dtype for each in model.graph.inputs] == [HALF, ir.DataType.INT64]
    assert model.graph.initializers["w"].dtype is HALF
    assert model.graph.outputs[0].dtype is HALF


def test_what_depends_on_float32_alone_stays_and_is_cast_once_where_it_is_read() -> None:
    model = parsed(
        "g (float[2] x, float[1] t) => (float[2] y, float[2] z) { s = Sin(t) y = Add(x, s) z = Mul(x, s) }"
    )
    to_fp16(model, fixed=("t",))
    assert operators(model) == ["Sin", "Cast", "Add", "Mul"]
    sin, cast, add, mul = model.graph
    assert model.graph.inputs[1].dtype is FLOAT
    assert cast.inputs[0] is sin.outputs[0]
    assert cast.name == cast.outputs[0].name == "s_to_float16"
    assert cast.attributes["to"].as_int() == HALF
    assert add.inputs[1] is mul.inputs[1] is cast.outputs[0]


def test_an_output_in_float32_is_cast_and_keeps_its_name() -> None:
    model = parsed("g (float[2] t) => (float[2] y) { y = Sin(t) }")
    to_fp16(model, fixed=("t",))
    assert operators(model) == ["Sin", "Cast"]
    (output,) = model.graph.outputs
    assert (output.name, output.dtype, output.shape) == ("y", HALF, ir.Shape([2]))
    sin, cast = model.graph
    assert sin.outputs[0].name == "y_float32"
    assert sin.outputs[0].dtype is FLOAT
    assert cast.name == "y_to_float16"
    assert output is cast.outputs[0]


def test_constants_are_cast_to_the_largest_number_that_there_is() -> None:
    model = parsed(
        "g (float[4] x) => (float[4] y, float[4] z) <float[4] c = {1.5, -1e30, 1e30, 65504}> "
        "{ y = Add(x, c) z = Mul(x, c) }"
    )
    to_fp16(model)
    add, mul = model.graph
    constant = add.inputs[1]
    assert constant is mul.inputs[1]
    assert constant is not None
    assert constant.name == "c_float16"
    assert constant.const_value is not None
    numbers = constant.const_value.numpy()
    assert numbers.dtype == np.float16
    assert numbers.tolist() == [1.5, -65504, 65504, 65504]
    assert "c_float16" in model.graph.initializers


def test_nodes_that_are_kept_compute_in_float32_between_casts() -> None:
    model = parsed(
        "g (float[2, 2] x) => (float[2, 2] y) { a = Add(x, v) b = MatMul(a, w) y = Add(b, v) }",
        ("v", (2, 2)),
        ("w", (2, 2)),
    )
    for node in model.graph:
        node.name = f"node_{node.outputs[0].name}"
    to_fp16(model, keep=("node_b",))
    assert operators(model) == ["Add", "Cast", "MatMul", "Cast", "Add"]
    _, before, product, after, _ = model.graph
    assert before.attributes["to"].as_int() == FLOAT
    assert before.name == "a_to_float"
    assert after.attributes["to"].as_int() == HALF
    assert product.outputs[0].dtype is FLOAT
    weights = {name: value.dtype for name, value in model.graph.initializers.items()}
    assert weights == {"v": HALF, "w": FLOAT}


def test_a_weight_that_others_read_too_is_float16_and_cast_for_the_kept_one() -> None:
    model = parsed("g (float[2] x) => (float[2] y) { a = Add(x, w) y = Mul(a, w) }", ("w", (2,)))
    for node in model.graph:
        node.name = f"node_{node.outputs[0].name}"
    to_fp16(model, keep=("node_y",))
    assert model.graph.initializers["w"].dtype is HALF
    assert operators(model) == ["Add", "Cast", "Cast", "Mul", "Cast"]
    to_fp16(plain := parsed("g (float[2] x) => (float[2] y) { y = Mul(x, w) }", ("w", (2,))))
    assert plain.graph.initializers["w"].dtype is HALF


def test_a_cast_says_what_its_result_is() -> None:
    model = parsed(
        "g (float[2] x, int64[2] n) => (float[2] y) "
        "{ i = Cast <to = 7> (x) f = Cast <to = 1> (i) y = Add(x, f) }"
    )
    to_fp16(model)
    assert operators(model) == ["Cast", "Cast", "Cast", "Add"]
    assert [node.attributes["to"].as_int() for node in list(model.graph)[:3]] == [7, 1, HALF]


@pytest.mark.parametrize(
    ("operator", "inputs"),
    [
        ("Shape", "x"),
        ("Size", "x"),
        ("ArgMax", "x"),
        ("Greater", "x, x"),
        ("Less", "x, x"),
        ("Equal", "x, x"),
        ("GreaterOrEqual", "x, x"),
    ],
)
def test_results_that_are_no_floats_stay_what_they_are(operator: str, inputs: str) -> None:
    kind = {"Shape": "int64[1]", "Size": "int64", "ArgMax": "int64[1]"}.get(operator, "bool[2]")
    model = parsed(f"g (float[2] x) => ({kind} y, float[2] z) {{ y = {operator}({inputs}) z = Neg(x) }}")
    before = model.graph.outputs[0].dtype
    to_fp16(model)
    assert operators(model) == [operator, "Neg"]
    assert [each.dtype for each in model.graph.outputs] == [before, HALF]


def test_a_result_that_is_no_float_is_not_cast_where_it_is_read() -> None:
    model = parsed("g (float[2] x) => (float[2] y) { c = Greater(x, x) n = Not(c) y = Where(n, x, x) }")
    for node in list(model.graph)[:2]:
        node.outputs[0].dtype = ir.DataType.BOOL
    to_fp16(model)
    assert operators(model) == ["Greater", "Not", "Where"]


@pytest.mark.parametrize(
    ("made", "reader"),
    [
        ("Shape(x)", "Expand(t, c)"),
        ("Size(x)", "Tile(t, c)"),
        ("ArgMax(x)", "Gather(t, c)"),
        *(
            (f"{operator}(x, x)", "Where(c, t, t)")
            for operator in ("Greater", "Less", "Equal", "GreaterOrEqual")
        ),
    ],
)
def test_what_reads_such_a_result_beside_float32_stays_float32(made: str, reader: str) -> None:
    model = parsed(f"g (float[2] x, float[2] t) => (float[2] y) {{ c = {made} y = {reader} }}")
    model.graph[0].outputs[0].dtype = None
    to_fp16(model, fixed=("t",))
    assert operators(model) == [made.partition("(")[0], reader.partition("(")[0], "Cast"]


def test_floats_that_come_from_no_floats_are_cast_where_float16_reads_them() -> None:
    model = parsed("g (float[2] x, int64[1] n) => (float[2] y) { c = ConstantOfShape(n) y = Add(x, c) }")
    to_fp16(model)
    assert operators(model) == ["ConstantOfShape", "Cast", "Add"]
    assert model.graph[1].inputs[0] is model.graph[0].outputs[0]


def test_scales_and_roi_of_a_resize_stay_float32() -> None:
    model = parsed(
        "g (float[1, 1, 2, 2] x) => (float[1, 1, 4, 4] y) "
        "<float[8] roi = {0, 0, 0, 0, 1, 1, 1, 1}, float[4] scales = {1, 1, 2, 2}> "
        "{ y = Resize(x, roi, scales) }"
    )
    to_fp16(model)
    (resize,) = model.graph
    names = [each.name if each is not None else None for each in resize.inputs]
    assert names == ["x", "roi", "scales"]
    other = parsed("g (float[4] x) => (float[4] y) <float[4] scales = {1, 1, 2, 2}> { y = Add(x, scales) }")
    to_fp16(other)
    assert other.graph[0].inputs[1].name == "scales_float16"  # type: ignore[union-attr]


def test_the_result_is_a_valid_graph_that_computes_nearly_the_same() -> None:
    text = (
        "g (float[2, 4] x, float[1] t) => (float[2, 4] y) "
        "<float[4] c = {0.5, 1, 2, 4}, float[4] w = {1, 2, 3, 4}> "
        "{ s = Sin(t) a = Mul(x, c) b = Add(a, s) d = Softmax(b) y = Mul(d, w) }"
    )
    model = parsed(text)
    to_fp16(model, fixed=("t",))
    proto = ir.to_proto(model)
    onnx.checker.check_model(onnx.shape_inference.infer_shapes(proto, strict_mode=True), full_check=True)
    from onnx.reference import ReferenceEvaluator

    random = np.random.default_rng(1)
    x, t = random.standard_normal((2, 4)).astype(np.float32), np.ones(1, np.float32)
    original = onnx.parser.parse_model('<ir_version: 10, opset_import: ["" : 18]> ' + text)
    (expected,) = ReferenceEvaluator(original).run(None, {"x": x, "t": t})
    (found,) = ReferenceEvaluator(proto).run(None, {"x": x.astype(np.float16), "t": t})
    assert found.dtype == np.float16
    np.testing.assert_allclose(found, expected, rtol=5e-3, atol=1e-3)

"""What a graph becomes for a target and a precision; the graphs are small, their operators real."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import onnx
import onnx_ir as ir
import pytest

from conversions.errors import ConversionError
from conversions.family import Submodel, family_named
from conversions.graph_kind import TensorSpec
from conversions.options import Options, Precision, Target
from conversions.passes.adapt import IN_RANGE, adapt
from conversions.passes.simplify import TRANSPOSED

BODY = """
    [first] p = MatMul(x, linear)
    [second] k = MatMul(x, kept)
    [sum] s = Add(p, k)
    [norm] l = LayerNormalization(s, gain, bias)
    [view] r = Reshape <allowzero = 1> (l, shape)
    [late] y = Add(r, t)
"""
WEIGHTS = {"linear": (64, 6), "kept": (64, 6), "gain": (6,), "bias": (6,)}
SIZES = {"n": 3}


def graph(body: str = BODY) -> ir.Model:
    """A graph whose weights have no values, those of linear layers turned, as ``simplify`` leaves them."""
    model = ir.from_proto(
        onnx.parser.parse_model(f"""
        <ir_version: 10, opset_import: ["" : 18, "com.microsoft" : 1, "com.example" : 1]>
        g (float[n, 64] x, float[n, 6] t) => (float[n, 6] y) <int64[2] shape = {{-1, 6}}> {{ {body} }}
        """)
    )
    read = {name: value for node in model.graph for value in node.inputs if value for name in [value.name]}
    for name, shape in WEIGHTS.items():
        if name in read:
            weight = read[name]
            weight.shape, weight.type = ir.Shape(shape), ir.TensorType(ir.DataType.FLOAT)
            model.graph.initializers[name] = weight
            if len(shape) == 2:
                weight.metadata_props[TRANSPOSED] = "1"
    return model


def submodel() -> Submodel:
    part = next(part for part in family_named("stable-diffusion").parts if part.role == "denoiser")
    kind = replace(
        part.kinds[0],
        inputs=lambda config: (
            TensorSpec(name="x", dtype="float", shape=("n", 64)),
            TensorSpec(name="t", dtype=config["dtype"], shape=("n", 6)),
        ),
        sensitive=("^kept",),
    )
    return Submodel(name="part", component="part", kind=kind, role=part.role)


def adapted(
    model: ir.Model,
    precision: Precision = "fp16",
    target: Target = "directml",
    ranges: Mapping[str, float] | None = IN_RANGE,
) -> list[str]:
    """Adapt a graph; returns the names of the nodes that stay in float32."""
    options = Options(precision=precision, target=target)
    kept = adapt(model, submodel(), {"dtype": "float32"}, options, SIZES, ranges)
    return [each.node for each in kept]


def types(model: ir.Model) -> dict[str, str]:
    return {str(value.name): str(value.dtype) for value in (*model.graph.inputs, *model.graph.outputs)}


def operators(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


def test_float32_stays_and_weights_are_read_as_they_are_stored() -> None:
    model = graph()
    assert adapted(model, "fp32", ranges={"p": math.inf}) == []
    assert model.graph.name == "part"
    assert types(model) == {"x": "FLOAT", "t": "FLOAT", "y": "FLOAT"}
    assert operators(model) == [
        *("FusedMatMul", "FusedMatMul", "Add", "LayerNormalization", "Reshape", "Add"),
    ]
    assert tuple(model.graph.initializers["linear"].shape or ()) == (6, 64)


def test_float16_leaves_the_inputs_of_a_kind_that_are_float32() -> None:
    model = graph()
    assert adapted(model) == []
    assert types(model) == {"x": "FLOAT16", "t": "FLOAT", "y": "FLOAT16"}
    assert operators(model).count("Cast") == 1
    other = graph()
    adapt(other, submodel(), {"dtype": "float"}, Options(), SIZES)
    assert types(other)["t"] == "FLOAT16"


def test_what_leaves_the_range_stays_in_float32_with_what_reads_it() -> None:
    model = graph()
    assert adapted(model, ranges={"p": 1e6}) == ["first", "sum"]
    assert str(model.graph.initializers["linear"].dtype) == "FLOAT"
    assert str(model.graph.initializers["kept"].dtype) == "FLOAT16"


@pytest.mark.parametrize(("target", "kept"), [("directml", ["norm"]), ("cuda", []), ("cpu", [])])
def test_norms_stay_in_float32_where_a_target_keeps_their_variance(target: Target, kept: list[str]) -> None:
    assert adapted(graph(), target=target, ranges={"deviation of norm": 250.0}) == kept
    assert adapted(graph(), target=target, ranges={"deviation of norm": 1.0}) == []
    assert adapted(graph(), target=target, ranges=None) == kept
    assert adapted(graph(), "fp32", target, ranges=None) == []


def test_linear_attention_stays_in_float32_and_is_named_once() -> None:
    body = """
        [relu] r = Relu(x) [turn] u = Transpose <perm = [1, 0]> (r) [ones] p = Pad(r, below, filling)
        [product] m = MatMul(u, p) [all] h = MatMul(r, m)
        [top] a = Slice(h, first, six, one) [bottom] c = Slice(h, six, seven, one) [part] d = Div(a, c)
        [late] y = Add(d, t)
    """
    constants = """
        first = Constant <value_ints = [0]> () six = Constant <value_ints = [6]> ()
        seven = Constant <value_ints = [7]> () one = Constant <value_ints = [1]> ()
        below = Constant <value_ints = [0, 0, 0, 1]> () filling = Constant <value_float = 1.0> ()
    """
    part = ["relu", "turn", "ones", "product", "all", "top", "bottom", "part"]
    assert adapted(graph(constants + body), target="cuda") == part
    assert adapted(graph(constants + body), target="cuda", ranges=None) == part
    # What was found by its range has its reason from there.
    by_range = ["part", "late"]
    rest = [name for name in part if name not in by_range]
    assert adapted(graph(constants + body), target="cuda", ranges={"d": 1e6}) == [*by_range, *rest]


@pytest.mark.parametrize(("precision", "bits"), [("int8", 8), ("int4", 4)])
def test_weights_are_quantised_but_for_those_that_results_depend_on(precision: Precision, bits: int) -> None:
    model = graph()
    adapted(model, precision)
    (quantised,) = (node for node in model.graph if node.op_type == "MatMulNBits")
    assert quantised.attributes.get_int("bits") == bits
    assert operators(model).count("FusedMatMul") == 1
    assert "kept" in model.graph.initializers
    assert "linear" not in model.graph.initializers


@pytest.mark.parametrize(("target", "left"), [("directml", False), ("cuda", True)])
def test_a_target_s_own_passes_are_run(target: Target, left: bool) -> None:
    model = graph()
    adapted(model, target=target)
    (view,) = (node for node in model.graph if node.op_type == "Reshape")
    assert ("allowzero" in view.attributes) == left


def test_an_operator_without_a_kernel_is_refused_where_kernels_are_known() -> None:
    body = "[strange] s = com.example.Unknown(x) y = MatMul(x, linear)"
    with pytest.raises(ConversionError, match=r"^part has nodes that directml cannot run: strange") as caught:
        adapted(graph(body), "fp32")
    assert caught.value.code == "placement.no_kernel"
    assert adapted(graph(body), "fp32", target="cuda") == []

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from conversions.passes.fuse_group_norm import fuse_group_norm
from conversions.passes.to_fp16 import to_fp16
from conversions.shape_inference import infer_shapes
from conversions.verification.fp16_overflow import (
    LARGEST_DEVIATION,
    any_overflow,
    deviates_too_far,
    find_norms,
    find_overflowing,
    leaves_range,
    measure_ranges,
)
from tests.benchmarks.process_tree import memory_taken
from tests.conversions.graphs_for_tests import group_norm_graph, image, psnr, run_by_definition, run_on_cpu

TEXT = """
<ir_version: 10, opset_import: ["" : 18]>
g (float[n, 8] x) => (float[n, 8] y)
<float big = {60000}, float small = {0.00001}>
{ a = Relu(x) grown = Mul(a, big) summed = Add(grown, grown) back = Mul(summed, small) y = Sigmoid(back) }
"""
X = np.linspace(-1, 3, 24, dtype=np.float32).reshape(3, 8)


def overflowing() -> ir.Model:
    """A graph whose third value reaches 360,000: more than float16 holds."""
    model = ir.from_proto(onnx.parser.parse_model(TEXT))
    for number, node in enumerate(model.graph):
        node.name = f"n{number}_{node.op_type}"
    infer_shapes(model)
    return model


def saved(model: ir.Model, folder: Path) -> Path:
    path = folder / "model.onnx"
    ir.save(model, path, external_data="model.onnx_data")
    return path


def test_the_largest_magnitude_of_every_value_is_measured(tmp_path: Path) -> None:
    ranges = measure_ranges(saved(overflowing(), tmp_path), {"x": X})

    assert ranges["a"] == pytest.approx(3.0)
    assert ranges["grown"] == pytest.approx(180_000)
    assert ranges["summed"] == pytest.approx(360_000)
    assert ranges["y"] <= 1


def test_what_was_measured_is_given_back_at_once(tmp_path: Path) -> None:
    """40 values of 8 MiB, of which three need to exist at a time."""
    nodes = " ".join(f"y{number + 1} = Sigmoid(y{number})" for number in range(40))
    model = ir.from_onnx_text(f"""<ir_version: 10, opset_import: ["" : 18]>
        g (float[n, 2048] y0) => (float[n, 2048] y40) {{ {nodes} }}""")
    path = saved(model, tmp_path)
    with memory_taken() as taken:
        ranges = measure_ranges(path, {"y0": np.zeros((1024, 2048), np.float32)})
    assert len(ranges) == 40
    assert taken[0] < 80 * 2**20


def test_a_float16_graph_is_measured_in_float32(tmp_path: Path) -> None:
    model = overflowing()
    to_fp16(model)

    ranges = measure_ranges(saved(model, tmp_path), {"x": X})

    assert ranges["summed"] == pytest.approx(360_000, rel=1e-3)


def test_fused_group_norms_are_measured_too(tmp_path: Path) -> None:
    model = group_norm_graph()
    fuse_group_norm(model)

    ranges = measure_ranges(saved(model, tmp_path), {"x": image()})

    assert {"a", "z", "y"} <= set(ranges)
    assert all(np.isfinite(largest) for largest in ranges.values())


def test_only_the_layers_that_overflow_and_their_readers_are_chosen(tmp_path: Path) -> None:
    ranges = measure_ranges(saved(overflowing(), tmp_path), {"x": X})

    chosen = find_overflowing(overflowing(), ranges)

    assert [entry.operator for entry in chosen] == ["Mul", "Add", "Mul"]
    assert chosen[0].reason == "reaches 1.8e+05; float16 ends at 65504"
    assert chosen[2].reason.startswith("reads values up to 3.6e+05")


def test_keeping_just_those_in_float32_cures_the_overflow(tmp_path: Path) -> None:
    twin = run_on_cpu(overflowing(), {"x": X})[0]
    broken = overflowing()
    to_fp16(broken)
    half = {"x": X.astype(np.float16)}
    keep = {
        entry.node
        for entry in find_overflowing(overflowing(), measure_ranges(saved(overflowing(), tmp_path), {"x": X}))
    }

    cured = overflowing()
    to_fp16(cured, keep=keep)

    # ONNX Runtime's CPU provider computes float16 in float32; only the definition shows what a GPU would do.
    with np.errstate(all="ignore"):
        assert not np.allclose(run_by_definition(broken, half)[0], twin, atol=0.05)
    assert psnr(twin, run_by_definition(cured, half)[0]) > 60


def test_a_harmless_graph_keeps_nothing_in_float32(tmp_path: Path) -> None:
    model = group_norm_graph()

    assert find_overflowing(model, measure_ranges(saved(model, tmp_path), {"x": image()})) == ()


ATTENTION = """
<ir_version: 10, opset_import: ["" : 18, "com.microsoft" : 1]>
g (float[n, s, 8] x) => (float[n, s, 8] y)
<float large = {200}>
{
    query = Mul(x, large)
    mixed = com.microsoft.MultiHeadAttention <num_heads = 2> (query, query, x)
    y = Sigmoid(mixed)
}
"""


def test_an_attention_is_chosen_for_its_scores_alone(tmp_path: Path) -> None:
    model = ir.from_proto(onnx.parser.parse_model(ATTENTION))
    for number, node in enumerate(model.graph):
        node.name = f"n{number}_{node.op_type}"
    infer_shapes(model)
    x = np.random.default_rng(2).normal(0, 1, (2, 5, 8)).astype(np.float32)

    ranges = measure_ranges(saved(model, tmp_path), {"x": x})
    chosen = find_overflowing(model, ranges)

    heads = 200 * x.reshape(2, 5, 2, 4).transpose(0, 2, 1, 3)
    scores = float(np.abs(heads @ heads.transpose(0, 1, 3, 2)).max())
    assert ranges["scores of n1_MultiHeadAttention"] == pytest.approx(scores)
    assert [entry.node for entry in chosen] == ["n1_MultiHeadAttention"]
    assert chosen[0].reason == f"has scores up to {scores:.3g}; float16 ends at 65504"


NORMS = """
<ir_version: 10, opset_import: ["" : 18, "com.microsoft" : 1]>
g (float[n, 6, 5, 7] x) => (float[n, 6, 5, 7] y, float[n, 6, 5, 7] c)
<float[7] "block.norm.weight" = {1, 1, 1, 1, 1, 1, 1}, float[1] plane = {1},
 float[6] "block.group.weight" = {1, 1, 1, 1, 1, 1},
 float[6] zeros = {0, 0, 0, 0, 0, 0}, int64[4] back = {0, 6, 5, 7}, int64[3] grouped = {0, 3, -1},
 float[3] ones = {1, 1, 1}, float[3] none = {0, 0, 0}>
{
    a = LayerNormalization(x, "block.norm.weight")
    b = LayerNormalization <axis = 2> (x, plane)
    c = SimplifiedLayerNormalization(x, "block.norm.weight")
    d = com.microsoft.GroupNorm <groups = 3, channels_last = 0> (x, "block.group.weight", zeros)
    r = Reshape(x, grouped)
    i = InstanceNormalization(r, ones, none)
    e = Reshape(i, back)
    y = Sum(x, a, b, d, e)
}
"""
NORM_NODES = [
    "n0_LayerNormalization",
    "n1_LayerNormalization",
    "n2_SimplifiedLayerNormalization",
    "n3_GroupNorm",
    "n5_InstanceNormalization",
]


def norms() -> ir.Model:
    model = ir.from_proto(onnx.parser.parse_model(NORMS))
    for number, node in enumerate(model.graph):
        node.name = f"n{number}_{node.op_type}"
    infer_shapes(model)
    return model


def values(scale: float, middle: float = 0.0) -> np.ndarray[Any, Any]:
    x = np.random.default_rng(4).standard_normal((2, 6, 5, 7)) * scale + middle
    return x.astype(np.float32)


@pytest.mark.parametrize("half", [False, True])
def test_the_deviation_of_what_each_norm_normalises_is_measured(half: bool, tmp_path: Path) -> None:
    model = norms()
    if half:
        to_fp16(model)
    x = values(30, 500)

    ranges = measure_ranges(saved(model, tmp_path), {"x": x})

    def largest(rows: np.ndarray[Any, Any]) -> Any:
        return pytest.approx(float(rows.std(-1).max()), rel=1e-3)

    measured = [ranges[f"deviation of {name}"] for name in NORM_NODES]
    groups = largest(x.reshape(2, 3, -1))
    squares = pytest.approx(float(np.sqrt((x * x).mean(-1)).max()), rel=1e-3)
    assert measured == [largest(x), largest(x.reshape(2, 6, -1)), squares, groups, groups]


def test_a_norm_is_chosen_where_the_variance_of_its_input_would_leave_float16(tmp_path: Path) -> None:
    quiet = measure_ranges(saved(norms(), tmp_path), {"x": values(30, 1000)})
    loud = measure_ranges(saved(norms(), tmp_path), {"x": values(200)})

    # Only the norm of squares minds the mean.
    chosen = find_overflowing(norms(), quiet, fp16_variance=True)
    assert [entry.node for entry in chosen] == ["n2_SimplifiedLayerNormalization"]
    chosen = find_overflowing(norms(), loud, fp16_variance=True)
    assert [entry.node for entry in chosen] == NORM_NODES
    assert [entry.layer for entry in chosen[:4]] == [
        "block.norm",
        "n1_LayerNormalization",
        "block.norm",
        "block.group",
    ]
    deviation = loud["deviation of n3_GroupNorm"]
    assert chosen[3].largest == deviation
    assert chosen[3].reason == (
        f"normalises values of a standard deviation up to {deviation:.3g}; "
        "the square of that would be a float16, which ends at 65504"
    )
    assert any_overflow(loud, fp16_variance=True)


def test_no_norm_is_chosen_for_a_target_that_squares_in_float32(tmp_path: Path) -> None:
    loud = measure_ranges(saved(norms(), tmp_path), {"x": values(2000)})

    assert find_overflowing(norms(), loud) == ()
    assert not any_overflow(loud, fp16_variance=False)


def test_the_limit_leaves_headroom() -> None:
    assert pytest.approx(256, abs=0.1) == LARGEST_DEVIATION
    assert deviates_too_far(129)
    assert deviates_too_far(float("nan"))
    assert not deviates_too_far(127)
    assert not deviates_too_far(LARGEST_DEVIATION / 2)
    assert leaves_range(32_753)
    assert leaves_range(float("nan"))
    assert not leaves_range(32_752)
    assert not leaves_range(float("-inf"))


@pytest.mark.parametrize(
    "operator",
    [
        "RMSNormalization",
        "SimplifiedLayerNormalization",
        "LayerNormalization",
        "GroupNorm",
        "GroupNormalization",
        "InstanceNormalization",
    ],
)
def test_norms_are_known_by_their_operators(operator: str) -> None:
    text = (
        f'<ir_version: 10, opset_import: ["" : 21]> g (float[1] x) => (float[1] y) {{ y = {operator}(x, x) }}'
    )
    assert [each.operator for each in find_norms(ir.from_proto(onnx.parser.parse_model(text)))] == [operator]
    text = text.replace(operator, "Add")
    assert find_norms(ir.from_proto(onnx.parser.parse_model(text))) == ()


@pytest.mark.parametrize(("one", "other", "layer"), [(10.0, 9e4, "b.other"), (9e4, 10.0, "a.one")])
def test_a_node_without_weights_is_named_after_where_its_largest_values_come_from(
    one: float, other: float, layer: str
) -> None:
    model = ir.from_proto(
        onnx.parser.parse_model("""
        <ir_version: 10, opset_import: ["" : 18]> g (float[2, 2] x) => (float[2, 2] y)
        { p = MatMul(x, v) q = MatMul(x, w) s = Add(p, q) r = Relu(s) y = Mul(r, r) }
        """)
    )
    nodes = list(model.graph)
    for number, (node, name) in enumerate(zip(nodes, ["a.one.weight", "b.other.weight"], strict=False)):
        weight = ir.Value(name=name)
        model.graph.initializers[name] = weight
        nodes[number].replace_input_with(1, weight)
        node.name = name
    ranges = {"p": one, "q": other, "s": 9e4, "r": 9e4}
    chosen = find_overflowing(model, ranges)
    # The product that overflows, the sum, what reads it, and what reads that.
    assert [each.operator for each in chosen] == ["MatMul", "Add", "Relu", "Mul"]
    assert {each.layer for each in chosen} == {layer}
    assert {each.largest for each in chosen} == {9e4}
    assert find_overflowing(model, dict.fromkeys(ranges, math.nan))[0].largest == math.inf


def test_a_node_that_nothing_was_put_into_is_named_after_itself() -> None:
    text = '<ir_version: 10, opset_import: ["" : 18]> g (float[2] x) => (float[2] y) { [only] y = Neg(x) }'
    (chosen,) = find_overflowing(ir.from_proto(onnx.parser.parse_model(text)), {"y": 1e5})
    assert (chosen.node, chosen.layer, chosen.operator) == ("only", "only", "Neg")


def test_every_norm_is_chosen_where_nothing_was_measured() -> None:
    chosen = find_norms(norms())

    assert [entry.node for entry in chosen] == NORM_NODES
    assert {entry.largest for entry in chosen} == {float("inf")}
    assert chosen[0].reason.startswith("normalises values whose standard deviation was not measured; ")


def test_a_chosen_norm_computes_in_float32_between_two_casts_and_nothing_else_does() -> None:
    model = norms()
    keep = {entry.node for entry in find_norms(model)}

    to_fp16(model, keep=keep)

    casts = [node for node in model.graph if node.op_type == "Cast"]
    # One cast of x for all four that read it, one of the groups, one behind each norm.
    assert len(casts) == 2 + len(NORM_NODES)
    for node in model.graph:
        kinds = {
            model.graph.initializers[str(value.name)].dtype
            if value.is_initializer()
            else ir.DataType(value.producer().attributes["to"].as_int())
            for value in node.inputs
            if value is not None and node.name in keep
        }
        assert kinds == ({ir.DataType.FLOAT} if node.name in keep else set())

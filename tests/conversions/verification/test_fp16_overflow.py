from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from conversions.passes.fuse_group_norm import fuse_group_norm
from conversions.passes.to_fp16 import to_fp16
from conversions.shape_inference import infer_shapes
from conversions.verification.fp16_overflow import find_overflowing, measure_ranges
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

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from conversions.passes.fuse_group_norm import fuse_group_norm
from conversions.passes.group_norm_channels_last import group_norm_channels_last
from tests.conversions.graphs_for_tests import group_norm_graph, image, psnr, run_by_definition, run_on_cpu


@pytest.mark.parametrize("silu", [True, False])
def test_it_computes_what_the_unfused_twin_computes(silu: bool) -> None:
    twin = run_on_cpu(group_norm_graph(silu=silu), {"x": image()})[0]
    model = group_norm_graph(silu=silu)
    fuse_group_norm(model)

    assert group_norm_channels_last(model) == 1
    assert psnr(twin, run_by_definition(model, {"x": image()})[0]) > 110


def test_half_precision_reads_its_weights_as_float32() -> None:
    feeds = {"x": image(np.float16)}
    twin = run_on_cpu(group_norm_graph(dtype="float16"), feeds)[0]
    model = group_norm_graph(dtype="float16")
    fuse_group_norm(model)

    assert group_norm_channels_last(model) == 1

    (norm,) = (node for node in model.graph if node.op_type == "GroupNorm")
    assert [value.producer().attributes["to"].value for value in norm.inputs[1:]] == [ir.DataType.FLOAT] * 2
    assert psnr(twin, run_by_definition(model, feeds)[0]) > 60


def test_a_second_time_changes_nothing() -> None:
    model = group_norm_graph()
    fuse_group_norm(model)
    group_norm_channels_last(model)
    before = Counter(node.op_type for node in model.graph)

    assert group_norm_channels_last(model) == 0
    assert Counter(node.op_type for node in model.graph) == before


def skip_graph(
    skip: str, operator: str = "com.microsoft.SkipGroupNorm", layout: str = "channels_last = 0"
) -> ir.Model:
    """A SkipGroupNorm of half precision whose skip is an image, or a vector for each image."""
    text = f"""
    <ir_version: 10, opset_import: ["" : 18, "com.microsoft" : 1, "com.example" : 1]>
    g (float16[2, 8, 3, 5] x, float16[8] gamma, float16[8] beta, float16[{skip}] skip, float16[8] bias)
        => (float16[2, 8, 3, 5] y)
    {{
        t = Neg(x)
        y = {operator} <groups = 4, epsilon = 0.01, activation = 1, {layout}> (t, gamma, beta, skip, bias)
    }}
    """
    return ir.from_proto(onnx.parser.parse_model(text))


@pytest.mark.parametrize(("skip", "transposed"), [("2, 8, 3, 5", 2), ("2, 8", 1)])
def test_a_skip_that_is_an_image_is_turned_and_a_vector_is_not(skip: str, transposed: int) -> None:
    random = np.random.default_rng(2)
    model = skip_graph(skip)
    feeds = {
        str(value.name): random.normal(1.0, 0.5, value.shape.numpy()).astype(np.float16)
        for value in model.graph.inputs
        if value.shape is not None
    }
    twin = run_by_definition(skip_graph(skip), feeds)[0]
    assert group_norm_channels_last(model) == 1
    counted = Counter(node.op_type for node in model.graph)
    # The sum's bias and the skip keep their type; the norm's own weights are float32.
    assert counted == {"Neg": 1, "Transpose": transposed + 1, "Cast": 2, "SkipGroupNorm": 1}
    assert psnr(twin.astype(np.float32), run_by_definition(model, feeds)[0].astype(np.float32)) > 50


@pytest.mark.parametrize(
    ("operator", "layout"),
    [
        ("com.example.SkipGroupNorm", "channels_last = 0"),
        ("com.microsoft.Other", "channels_last = 0"),
        ("com.microsoft.SkipGroupNorm", "channels_last = 1"),
        ("com.microsoft.SkipGroupNorm", "size = 1"),
    ],
)
def test_others_stay(operator: str, layout: str) -> None:
    model = skip_graph("2, 8", operator, layout)
    assert group_norm_channels_last(model) == 0
    assert len(list(model.graph)) == 2

from __future__ import annotations

from collections import Counter

import numpy as np
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

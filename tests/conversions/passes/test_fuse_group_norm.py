from __future__ import annotations

from collections import Counter

import numpy as np
import onnx_ir as ir
import pytest

from conversions.passes.expand_group_norm import expand_group_norm
from conversions.passes.fuse_group_norm import fuse_group_norm
from tests.conversions.graphs_for_tests import group_norm_graph, image, psnr, run_by_definition, run_on_cpu


def operators(model: ir.Model) -> Counter[str]:
    return Counter(node.op_type for node in model.graph)


@pytest.mark.parametrize("views", [True, False])
@pytest.mark.parametrize("silu", [True, False])
def test_the_fused_graph_computes_what_its_unfused_twin_computes(silu: bool, views: bool) -> None:
    twin = run_on_cpu(group_norm_graph(silu=silu, views=views), {"x": image()})[0]
    fused = group_norm_graph(silu=silu, views=views)

    assert fuse_group_norm(fused) == 1
    assert psnr(twin, run_by_definition(fused, {"x": image()})[0]) > 110


@pytest.mark.parametrize("silu", [True, False])
def test_fusing_and_expanding_gives_back_a_graph_of_the_same_numbers(silu: bool) -> None:
    twin = run_on_cpu(group_norm_graph(silu=silu), {"x": image()})[0]
    model = group_norm_graph(silu=silu)
    fuse_group_norm(model)

    assert expand_group_norm(model) == 1
    assert "GroupNorm" not in operators(model)
    np.testing.assert_allclose(run_on_cpu(model, {"x": image()})[0], twin, rtol=1e-5, atol=1e-5)


def test_silu_is_folded_in_and_nothing_of_the_pattern_is_left() -> None:
    model = group_norm_graph()

    fuse_group_norm(model)

    assert operators(model) == {"Conv": 2, "GroupNorm": 1}
    norm = next(node for node in model.graph if node.op_type == "GroupNorm")
    assert norm.attributes["activation"].value == 1
    assert norm.attributes["groups"].value == 4
    assert norm.attributes["channels_last"].value == 0
    assert norm.attributes["epsilon"].value == pytest.approx(1e-5)
    assert [value.name for value in norm.inputs[1:] if value] == ["weight", "bias"]
    assert set(model.graph.initializers) == {"weight", "bias", "before"}


def test_a_sum_that_is_also_read_elsewhere_keeps_its_sigmoid() -> None:
    model = group_norm_graph()
    total = next(node for node in model.graph if node.op_type == "Add").outputs[0]
    model.graph.outputs.append(total)

    fuse_group_norm(model)

    assert operators(model)["Sigmoid"] == 1
    norm = next(node for node in model.graph if node.op_type == "GroupNorm")
    assert norm.attributes["activation"].value == 0


@pytest.mark.parametrize(
    ("grouped", "back"),
    [("0, 4, 0, -1", "0, 16, -1, 0"), ("0, 2, -1, 0", "0, 16, -1, 0"), ("4, 0, -1, 0", "0, 16, -1, 0")],
)
def test_a_reshape_that_does_not_group_channels_is_left_alone(grouped: str, back: str) -> None:
    model = group_norm_graph(grouped=grouped, back=back)

    assert fuse_group_norm(model) == 0
    assert operators(model)["InstanceNormalization"] == 1


def test_an_instance_normalisation_with_its_own_scale_is_left_alone() -> None:
    model = group_norm_graph()
    model.graph.initializers["ones"].const_value = ir.tensor(np.full(4, 2, np.float32), name="ones")

    assert fuse_group_norm(model) == 0


def test_weights_need_no_values() -> None:
    model = group_norm_graph()
    for name in ("weight", "bias", "before"):
        model.graph.initializers[name].const_value = None

    assert fuse_group_norm(model) == 1


def test_half_precision_is_expanded_in_half_precision() -> None:
    feeds = {"x": image(np.float16)}
    twin = run_on_cpu(group_norm_graph(dtype="float16"), feeds)[0]
    model = group_norm_graph(dtype="float16")
    assert fuse_group_norm(model) == 1
    assert expand_group_norm(model) == 1

    assert psnr(twin, run_on_cpu(model, feeds)[0]) > 60

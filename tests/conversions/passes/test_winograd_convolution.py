from __future__ import annotations

from functools import partial

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from conversions.passes import winograd_convolution as winograd
from conversions.passes.winograd_convolution import transformed_kernel, winograd_convolution
from tests.conversions.graphs_for_tests import run_on_cpu
from tests.conversions.passes.convolutions import convolution_graph, same_numbers

SIZES = {"batch": 2, "height": 8, "width": 6}
CHANNELS = 2 * winograd.LEAST_REUSE
graph = partial(convolution_graph, weight=(CHANNELS, CHANNELS, 3, 3))


def operators(model: ir.Model) -> set[str]:
    return {node.op_type for node in model.graph}


@pytest.mark.parametrize(
    ("attributes", "channels", "filters"),
    [
        ("pads = [1, 1, 1, 1]", CHANNELS, CHANNELS),
        ("", CHANNELS, CHANNELS),
        ("pads = [2, 1, 0, 3]", CHANNELS, CHANNELS),
        # The transform of the weights takes a part of the channels at a time; the last part is smaller.
        ("pads = [1, 1, 1, 1]", CHANNELS + 40, CHANNELS),
        ("pads = [1, 1, 1, 1]", CHANNELS, CHANNELS + 24),
    ],
)
def test_the_products_compute_the_convolution(attributes: str, channels: int, filters: int) -> None:
    model, changed = (graph(attributes, weight=(filters, channels, 3, 3)) for _ in range(2))
    assert winograd_convolution(changed, SIZES, 1) == 1
    assert "Conv" not in operators(changed)
    assert set(changed.graph.initializers) >= {"w_winograd", "b"}
    assert "w" not in changed.graph.initializers
    same_numbers(model, changed, SIZES, channels)


def test_without_a_bias() -> None:
    model, changed = graph(bias=False), graph(bias=False)
    assert winograd_convolution(changed, SIZES, 1) == 1
    same_numbers(model, changed, SIZES, CHANNELS)


def test_float16_holds_tiles_whose_pixels_are_the_largest_that_it_holds() -> None:
    model = graph(dtype="float16")
    weight = model.graph.initializers["w"]
    flat = np.full((CHANNELS, CHANNELS, 3, 3), 1 / (9 * CHANNELS), np.float16)
    weight.const_value = ir.tensor(flat, name="w")
    shape = (SIZES["batch"], CHANNELS, SIZES["height"], SIZES["width"])
    feeds = {"x": np.full(shape, 60_000, np.float16)}
    (before,) = run_on_cpu(model, feeds)
    assert winograd_convolution(model, SIZES, 1) == 1
    (after,) = run_on_cpu(model, feeds)
    np.testing.assert_allclose(after.astype(np.float32), before.astype(np.float32), rtol=2e-3)


def test_the_transformed_weight_has_sixteen_numbers_for_nine_in_its_own_type() -> None:
    weight = np.random.default_rng(2).normal(0, 1, (3, 70, 3, 3)).astype(np.float16)
    transformed = transformed_kernel(weight)
    assert (transformed.shape, transformed.dtype) == ((16, 70, 3), np.float16)
    # Corners of a kernel come through alone: G has a single 1 in its first and last rows.
    np.testing.assert_array_equal(transformed[0].T, 4 * weight[:, :, 0, 0])
    np.testing.assert_array_equal(transformed[3].T, 4 * weight[:, :, 0, 2])
    np.testing.assert_array_equal(transformed[12].T, 4 * weight[:, :, 2, 0])


def test_weights_that_are_given_are_used_instead_of_the_model_s() -> None:
    model, changed = graph(), graph()
    other = np.random.default_rng(5).normal(0, 1, (CHANNELS, CHANNELS, 3, 3)).astype(np.float32)
    assert winograd_convolution(changed, SIZES, 1, {"w": other}) == 1
    model.graph.initializers["w"].const_value = ir.tensor(other, name="w")
    same_numbers(model, changed, SIZES, CHANNELS)


def test_a_weight_that_two_convolutions_read_is_transformed_once() -> None:
    text = f"""
    <ir_version: 10, opset_import: ["" : 18]>
    g (float[batch, {CHANNELS}, height, width] x) => (float[batch, {CHANNELS}, height, width] y) {{
      [a] m = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (x, w)
      [b] y = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (m, w)
    }}
    """
    proto = onnx.parser.parse_model(text)
    values = np.random.default_rng(1).normal(0, 0.02, (CHANNELS, CHANNELS, 3, 3)).astype(np.float32)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(values, "w"))
    model, changed = ir.from_proto(proto), ir.from_proto(proto)
    assert winograd_convolution(changed, SIZES, 1) == 2
    assert {"w", "w_winograd"} & set(changed.graph.initializers) == {"w_winograd"}
    same_numbers(model, changed, SIZES, CHANNELS)


def test_what_else_reads_a_weight_keeps_it() -> None:
    model = graph()
    node = model.graph[0]
    model.graph.append(ir.node("Identity", [node.inputs[1]], name="reader"))
    assert winograd_convolution(model, SIZES, 1) == 1
    assert {"w", "w_winograd"} <= set(model.graph.initializers)


@pytest.mark.parametrize(("least", "written"), [(2 * 8 * 6, 1), (2 * 8 * 6 + 1, 0)])
def test_only_over_enough_pixels_of_all_images(least: int, written: int) -> None:
    model = graph()
    assert winograd_convolution(model, SIZES, least) == written
    assert ("Conv" in operators(model)) == (not written)


@pytest.mark.parametrize(("channels", "filters"), [(CHANNELS, CHANNELS + 8), (CHANNELS + 8, CHANNELS)])
@pytest.mark.parametrize(("most", "turns"), [(1.0, 1), (0.99, 2), (0.3, 4), (1e-6, 12)])
def test_tiles_that_would_take_too_much_memory_take_turns(
    most: float, turns: int, channels: int, filters: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    largest = 2 * 16 * 4 * 3 * (CHANNELS + 8) * 4  # two images, 16 numbers, 4 x 3 tiles, float32
    monkeypatch.setattr(winograd, "MOST_BYTES", max(1, int(most * largest)))
    model, changed = (graph(weight=(filters, channels, 3, 3)) for _ in range(2))
    if turns > 1:
        assert winograd_convolution(changed, SIZES, 1, in_turns=False) == 0
        assert "Conv" in operators(changed)
    assert winograd_convolution(changed, SIZES, 1) == 1
    assert sum(node.op_type == "Gather" for node in changed.graph) == turns
    same_numbers(model, changed, SIZES, channels)


@pytest.mark.parametrize(
    "model",
    [
        graph(weight=(CHANNELS - 2, CHANNELS, 3, 3)),
        graph(weight=(CHANNELS, CHANNELS - 2, 3, 3)),
        graph("", weight=(CHANNELS, CHANNELS, 1, 1)),
        graph("pads = [2, 2, 2, 2]", weight=(CHANNELS, CHANNELS, 5, 5)),
        graph("pads = [1, 1, 1, 1], strides = [2, 2]"),
        graph("pads = [2, 2, 2, 2], dilations = [2, 2]"),
        graph("pads = [1, 1, 2, 1]"),
        graph("pads = [1, 1, 1, 2]"),
        graph('auto_pad = "SAME_UPPER"'),
        graph("pads = [1, 1, 1, 1], group = 2", channels=2 * CHANNELS),
        graph("pads = [1, 1]", weight=(CHANNELS, CHANNELS, 3)),
    ],
    ids=[
        "few filters",
        "few channels",
        "1x1",
        "5x5",
        "strides",
        "dilations",
        "odd height",
        "odd width",
        "implied padding",
        "groups",
        "one dimension",
    ],
)
def test_other_convolutions_stay(model: ir.Model) -> None:
    assert winograd_convolution(model, SIZES, 1) == 0
    assert "Conv" in operators(model)


def test_a_weight_that_is_computed_stays() -> None:
    """Such as one that is widened to float32 for a session."""
    model = graph()
    node, weight = model.graph[0], model.graph.initializers["w"]
    cast = ir.node("Cast", [weight], attributes={"to": ir.DataType.FLOAT}, name="cast")
    cast.outputs[0].shape, cast.outputs[0].type = weight.shape, weight.type
    model.graph.insert_before(node, cast)
    node.replace_input_with(1, cast.outputs[0])
    assert winograd_convolution(model, SIZES, 1) == 0

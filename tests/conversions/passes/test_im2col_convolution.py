from __future__ import annotations

from functools import partial

import onnx
import onnx_ir as ir
import pytest

from conversions.passes.im2col_convolution import LEAST_CHANNELS, im2col_convolution
from tests.conversions.passes.convolutions import convolution_graph, same_numbers

SIZES = {"batch": 2, "height": 6, "width": 5}
FILTERS = 3


graph = partial(convolution_graph, weight=(FILTERS, LEAST_CHANNELS, 3, 3))


@pytest.mark.parametrize(
    ("attributes", "kernel"),
    [
        ("pads = [1, 1, 1, 1]", (3, 3)),
        ("", (3, 3)),
        ("pads = [1, 1, 1, 1], strides = [2, 2]", (3, 3)),
        # As the VAE encoder's downsampling: zeros below and to the right alone.
        ("pads = [0, 0, 1, 1], strides = [2, 2]", (3, 3)),
        ("pads = [2, 1, 0, 3]", (3, 3)),
        ("pads = [2, 2, 2, 2], dilations = [2, 2]", (3, 3)),
        ("pads = [0, 1, 0, 1], strides = [1, 2], dilations = [1, 1]", (1, 3)),
        ("", (2, 1)),
    ],
)
def test_the_products_compute_the_convolution(attributes: str, kernel: tuple[int, int]) -> None:
    model, changed = (graph(attributes, weight=(FILTERS, LEAST_CHANNELS, *kernel)) for _ in range(2))
    assert im2col_convolution(changed, SIZES, 1000) == 1
    assert "Conv" not in {node.op_type for node in changed.graph}
    same_numbers(model, changed, SIZES, LEAST_CHANNELS)


def test_nodes_need_no_names() -> None:
    model = graph()
    for node in model.graph:
        node.name = ""
    assert im2col_convolution(model, SIZES, 1000) == 1
    assert "Conv" not in {node.op_type for node in model.graph}


def test_without_a_bias() -> None:
    model, changed = graph(bias=False), graph(bias=False)
    assert im2col_convolution(changed, SIZES, 1000) == 1
    same_numbers(model, changed, SIZES, LEAST_CHANNELS)


@pytest.mark.parametrize(("most", "written"), [(2 * 6 * 5, 1), (2 * 6 * 5 - 1, 0)])
def test_only_over_few_pixels_of_all_images(most: int, written: int) -> None:
    model = graph()
    assert im2col_convolution(model, SIZES, most) == written
    assert ("Conv" in {node.op_type for node in model.graph}) == (not written)


def test_the_output_s_pixels_count() -> None:
    strided = "pads = [1, 1, 1, 1], strides = [2, 2]"
    assert im2col_convolution(graph(strided), SIZES, 2 * 3 * 3) == 1
    assert im2col_convolution(graph(strided), SIZES, 2 * 3 * 3 - 1) == 0


@pytest.mark.parametrize(
    "model",
    [
        graph(weight=(FILTERS, LEAST_CHANNELS - 8, 3, 3), channels=LEAST_CHANNELS - 8),
        graph(weight=(FILTERS, LEAST_CHANNELS + 4, 3, 3), channels=LEAST_CHANNELS + 4),
        graph("", weight=(FILTERS, LEAST_CHANNELS, 1, 1)),
        graph('auto_pad = "SAME_UPPER"'),
        graph(f"pads = [1, 1, 1, 1], group = {LEAST_CHANNELS}", weight=(LEAST_CHANNELS, 1, 3, 3)),
        graph("pads = [1, 1]", weight=(FILTERS, LEAST_CHANNELS, 3)),
    ],
    ids=["few channels", "no eighths", "one element", "implied padding", "groups", "one dimension"],
)
def test_other_convolutions_stay(model: ir.Model) -> None:
    assert im2col_convolution(model, SIZES, 1000) == 0
    assert "Conv" in {node.op_type for node in model.graph}


def test_a_graph_without_convolutions_stays() -> None:
    text = '<ir_version: 10, opset_import: ["" : 18]> g (float[n] x) => (float[n] y) { y = Neg(x) }'
    assert im2col_convolution(ir.from_proto(onnx.parser.parse_model(text)), {}, 1000) == 0

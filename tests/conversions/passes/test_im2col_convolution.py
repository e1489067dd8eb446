from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from conversions.passes.im2col_convolution import LEAST_CHANNELS, im2col_convolution
from tests.conversions.graphs_for_tests import run_on_cpu

SIZES = {"batch": 2, "height": 6, "width": 5}
FILTERS = 3


def graph(
    attributes: str = "pads = [1, 1, 1, 1]",
    *,
    weight: tuple[int, ...] = (FILTERS, LEAST_CHANNELS, 3, 3),
    channels: int = LEAST_CHANNELS,
    bias: bool = True,
) -> ir.Model:
    image = ", ".join(["height", "width"][: len(weight) - 2])
    out = ", ".join(["rows", "columns"][: len(weight) - 2])
    kernel = f"kernel_shape = [{', '.join(map(str, weight[2:]))}]"
    text = f"""
    <ir_version: 10, opset_import: ["" : 18]>
    g (float[batch, {channels}, {image}] x) => (float[batch, {weight[0]}, {out}] y)
    {{
      [conv] c = Conv <{", ".join(filter(None, [kernel, attributes]))}> (x, w{", b" if bias else ""})
      y = Neg(c)
    }}
    """
    proto = onnx.parser.parse_model(text)
    random = np.random.default_rng(1)
    for name, shape in {"w": weight, "b": weight[:1]}.items():
        values = random.normal(0, 1, shape).astype(np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    return ir.from_proto(proto)


def same_numbers(model: ir.Model, changed: ir.Model, sizes: dict[str, int], channels: int) -> None:
    shape = (sizes["batch"], channels, sizes["height"], sizes["width"])
    feeds = {"x": np.random.default_rng(0).normal(0, 1, shape).astype(np.float32)}
    (before,) = run_on_cpu(model, feeds)
    (after,) = run_on_cpu(changed, feeds)
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-4)


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

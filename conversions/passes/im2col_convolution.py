"""Pass: a convolution over few pixels as a batch of matrix products that are summed (im2col, split K)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from conversions.passes.rewiring import NodeWriter, nodes_at, take_place
from conversions.shape_inference import static_shape

PRODUCTS = 8
"""Number of products that one convolution becomes; each sums over an equal share of the input channels."""

LEAST_CHANNELS = 256
"""Fewest input channels of such a convolution: with fewer, each product has too little to do."""


@dataclass(frozen=True, kw_only=True)
class _Window:
    """Sizes of a two-dimensional convolution.

    Attributes:
        images: Batch size.
        channels: Channels of the input.
        filters: Channels of the output.
        width: Of the input.
        outside: Height and width of the output.
        kernel: Height and width of the kernel.
        strides, dilations: Down and across.
        padding: Rows and columns of zeros above, to the left, below and to the right.
    """

    images: int
    channels: int
    filters: int
    width: int
    outside: tuple[int, int]
    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilations: tuple[int, int]
    padding: tuple[int, int, int, int]

    def zeros(self) -> list[int]:
        """Return the padding as the operator Pad takes it: before and after each dimension."""
        return [0, 0, *self.padding[:2], 0, 0, *self.padding[2:]]

    def pixels(self) -> NDArray[np.int32]:
        """Return the pixel of the padded input that a kernel element reads for each pixel of the output.

        Returns:
            [kernel rows, kernel columns, output pixels], int32.
        """
        width = self.padding[1] + self.width + self.padding[3]
        down, across = np.indices(self.outside).reshape(2, -1)
        rows, columns = (np.arange(size)[..., np.newaxis] for size in self.kernel)
        y = down * self.strides[0] + rows * self.dilations[0]
        x = across * self.strides[1] + columns * self.dilations[1]
        return (y[:, np.newaxis] * width + x).astype(np.int32)


def im2col_convolution(model: ir.Model, sizes: Mapping[str, int], most_pixels: int) -> int:
    """Write convolutions over few pixels as products, in place.

    A GPU divides a convolution among its cores by pixels and filters. Stable Diffusion's lowest resolutions
    have 64 to 512 pixels in all and up to 2,560 channels to sum over, so most cores wait. Eight products, of
    an eighth of the channels each, are eight times the parallel work, and their sum is the convolution. What
    it is worth: docs/explanation/providers.md.

    Rules:
        1. Two-dimensional, one group, explicit padding, a kernel of more than one element, ``LEAST_CHANNELS``
           input channels or more in eighths, and at most ``most_pixels`` in the output of all images.
        2. Padding is written out, and the pixels are gathered by a constant table.

    Args:
        model: A model whose weights may have no values.
        sizes: Sizes of the free dimensions of its inputs, by name.
        most_pixels: Most output pixels, of all images together, of a convolution that is rewritten.

    Returns:
        How many convolutions were rewritten.

    Raises:
        ConversionError: A free dimension has no size.
    """
    writer = NodeWriter(model.graph, "im2col_convolution")
    written = 0
    for node, fixed in nodes_at(model, sizes, ("", "Conv")):
        window = _window(fixed)
        if window is None or window.images * prod(window.outside) > most_pixels:
            continue
        _write_out(node, window, writer)
        written += 1
    return written


def _window(node: ir.Node) -> _Window | None:
    """Return the sizes of a convolution that may be rewritten, and None for any other one."""
    data, weight = (static_shape(each) if each is not None else None for each in node.inputs[:2])
    output = static_shape(node.outputs[0])
    attributes = node.attributes
    if data is None or weight is None or output is None or len(data) != 4:
        return None
    if attributes.get_int("group", 1) != 1 or attributes.get_string("auto_pad", "NOTSET") != "NOTSET":
        return None
    if prod(weight[2:]) == 1 or data[1] < LEAST_CHANNELS or data[1] % PRODUCTS:
        return None

    def pair(name: str) -> tuple[int, int]:
        down, across = attributes.get_ints(name, (1, 1))
        return (down, across)

    above, left, below, right = attributes.get_ints("pads", (0, 0, 0, 0))
    return _Window(
        images=data[0],
        channels=data[1],
        filters=weight[0],
        width=data[3],
        outside=(output[2], output[3]),
        kernel=(weight[2], weight[3]),
        strides=pair("strides"),
        dilations=pair("dilations"),
        padding=(above, left, below, right),
    )


def _write_out(node: ir.Node, window: _Window, writer: NodeWriter) -> None:
    data, weight, *bias = node.inputs
    assert data is not None and weight is not None
    writer.start(node)
    add, constant = writer.add, writer.constant
    padded = add("Pad", data, constant(window.zeros()))
    pixels = add("Reshape", padded, constant([window.images, window.channels, -1]))
    met = add("Gather", pixels, constant(window.pixels(), np.int32), axis=2)
    summed = window.channels * prod(window.kernel) // PRODUCTS
    columns = add("Reshape", met, constant([window.images, PRODUCTS, summed, -1]))
    # ONNX Runtime does this once, when the session opens.
    rows = add("Reshape", weight, constant([1, window.filters, PRODUCTS, summed]))
    matrices = add("Transpose", rows, perm=[0, 2, 1, 3])
    result = add("ReduceSum", add("MatMul", matrices, columns), constant([1]))
    if bias and bias[0] is not None:
        result = add("Add", result, add("Unsqueeze", bias[0], constant([1])))
    shape = constant([window.images, window.filters, *window.outside])
    take_place(add("Reshape", result, shape), node.outputs[0])
    assert node.graph is not None
    node.graph.remove(node, safe=True)

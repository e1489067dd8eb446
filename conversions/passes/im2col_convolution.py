"""Pass: a convolution over few pixels as a batch of matrix products that are summed (im2col, split K)."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import numpy as np
import onnx_ir as ir

from conversions.passes.convolution_sizes import ConvolutionSizes, sizes_of
from conversions.passes.rewiring import NodeWriter, nodes_at, take_place

PRODUCTS = 8
"""Number of products that one convolution becomes; each sums over an equal share of the input channels."""

LEAST_CHANNELS = 256
"""Fewest input channels of such a convolution: with fewer, each product has too little to do."""


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
        conv = sizes_of(fixed)
        if conv is None or not _gains(conv, most_pixels):
            continue
        _write_out(node, conv, writer)
        written += 1
    return written


def _gains(conv: ConvolutionSizes, most_pixels: int) -> bool:
    return (
        conv.kernel != (1, 1)
        and conv.channels >= LEAST_CHANNELS
        and not conv.channels % PRODUCTS
        and conv.output_pixels <= most_pixels
    )


def _write_out(node: ir.Node, conv: ConvolutionSizes, writer: NodeWriter) -> None:
    data, weight, *bias = node.inputs
    assert data is not None and weight is not None
    writer.start(node)
    add, constant = writer.add, writer.constant
    padded = add("Pad", data, constant(conv.zeros()))
    pixels = add("Reshape", padded, constant([conv.images, conv.channels, -1]))
    met = add("Gather", pixels, constant(conv.pixels_seen(conv.outside, conv.kernel), np.int32), axis=2)
    summed = conv.channels * prod(conv.kernel) // PRODUCTS
    columns = add("Reshape", met, constant([conv.images, PRODUCTS, summed, -1]))
    # ONNX Runtime does this once, when the session opens.
    rows = add("Reshape", weight, constant([1, conv.filters, PRODUCTS, summed]))
    matrices = add("Transpose", rows, perm=[0, 2, 1, 3])
    result = add("ReduceSum", add("MatMul", matrices, columns), constant([1]))
    if bias and bias[0] is not None:
        result = add("Add", result, add("Unsqueeze", bias[0], constant([1])))
    shape = constant([conv.images, conv.filters, *conv.outside])
    take_place(add("Reshape", result, shape), node.outputs[0])
    assert node.graph is not None
    node.graph.remove(node, safe=True)

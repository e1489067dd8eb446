"""Pass: a convolution of 3x3 as matrix products, with 2.25 times fewer multiplications (Winograd)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from conversions.passes.convolution_sizes import ConvolutionSizes, sizes_of
from conversions.passes.rewiring import NodeWriter, nodes_at, take_place
from conversions.weights import initializer

LEAST_REUSE = 128
"""Least channels * filters / (channels + filters): multiplications for each number that is transformed.

On an H200 through WebGPU, 256 to 256 channels at 256x256 (128) take 0.73 of the time, 128 to 128 at 512x512
(64) 1.07.
"""

MOST_BYTES = 64 * 2**20
"""Most that transformed tiles may take, of which three times is held at once."""

# F(2x2, 3x3). Source: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", section 4.1,
# arXiv:1509.09308.
_INPUT = np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]], np.float32)
_KERNEL = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]], np.float32)
_OUTPUT = np.array([[1, 1, 1, 0], [0, 1, -1, -1]], np.float32)
# An element of a transformed tile sums up to four pixels. A quarter of it is at most as large as they are, so
# float16 holds it; a power of two rounds nothing.
_QUARTER = np.float32(0.25)
_CHANNELS_AT_ONCE = 64


def winograd_convolution(
    model: ir.Model,
    sizes: Mapping[str, int] | None,
    least_pixels: int,
    weights: Mapping[str, NDArray[Any]] = MappingProxyType({}),
    in_turns: bool = True,
    is_faster: Callable[[ir.DataType], bool] | None = None,
) -> int:
    """Write convolutions of 3x3 as matrix products of transformed tiles, in place.

    The output is divided into tiles of 2x2 pixels. Each comes from 4x4 pixels of the input, which are
    transformed so that 16 products for each pair of channels give what otherwise takes 36; the 16 are
    independent, so that they are one batch of large matrix products. What it is worth:
    docs/explanation/providers.md.

    Rules:
        1. Two-dimensional, one group, explicit padding, 3x3, no strides or dilations, an even output of
           ``least_pixels`` or more, and ``LEAST_REUSE``.
        2. The weight is an initializer, float16 or float32. Its transform has 16 numbers for 9 and is a
           promise (``ir.LazyTensor``), kept by who needs it: ONNX Runtime would need several times as long.

    Args:
        model: A model; its weights need values only where the transformed ones are read.
        sizes: Of the free dimensions of its inputs; None where every shape of the model is known already.
        least_pixels: Fewest output pixels, of all images together, of a convolution that is rewritten.
        weights: Arrays to use instead of what the model's files hold, by initializer.
        in_turns: Whether tiles take turns where all at once take more than ``MOST_BYTES``; otherwise such a
            convolution stays.
        is_faster: Asked whether convolutions of an element type gain, once there is one; None takes it for
            granted.

    Returns:
        How many convolutions were rewritten.

    Raises:
        ConversionError: A free dimension has no size.
    """
    writer = NodeWriter(model.graph, "winograd_convolution")
    transformed: dict[ir.Value, ir.Value] = {}
    written = 0
    for node, fixed in nodes_at(model, sizes, ("", "Conv")):
        conv, weight = sizes_of(fixed), node.inputs[1]
        if conv is None or weight is None or not _gains(conv, weight, least_pixels, in_turns):
            continue
        assert weight.dtype is not None
        if is_faster is not None and not is_faster(weight.dtype):
            continue
        if weight not in transformed:
            transformed[weight] = _promised(weight, conv, weights.get(str(weight.name)))
            model.graph.register_initializer(transformed[weight])
        _write_out(node, conv, transformed[weight], writer)
        written += 1
    for weight in transformed:
        if not weight.uses():
            del model.graph.initializers[str(weight.name)]
    return written


def _gains(conv: ConvolutionSizes, weight: ir.Value, least_pixels: int, in_turns: bool) -> bool:
    dtype = weight.dtype
    if not weight.is_initializer() or dtype not in (ir.DataType.FLOAT16, ir.DataType.FLOAT):
        return False
    reuse = conv.channels * conv.filters / (conv.channels + conv.filters)
    return (
        (conv.kernel, conv.strides, conv.dilations) == ((3, 3), (1, 1), (1, 1))
        and not any(side % 2 for side in conv.outside)
        and conv.output_pixels >= least_pixels
        and reuse >= LEAST_REUSE
        and (in_turns or _turns(conv, dtype.numpy().itemsize) == 1)
    )


def _promised(weight: ir.Value, conv: ConvolutionSizes, given: NDArray[Any] | None) -> ir.Value:
    """Return an initializer whose value is the transform of a weight, computed when it is asked for."""
    stored = weight.const_value

    def compute() -> ir.TensorProtocol:
        numbers = given
        if numbers is None:
            assert stored is not None
            numbers = initializer.read(stored)
        return ir.tensor(transformed_kernel(numbers))

    name = f"{weight.name}_winograd"
    shape = ir.Shape((16, conv.channels, conv.filters))
    assert weight.dtype is not None
    tensor = ir.LazyTensor(compute, weight.dtype, shape, name=name)
    return ir.Value(name=name, type=weight.type, shape=shape, const_value=tensor)


def transformed_kernel(weight: NDArray[Any]) -> NDArray[Any]:
    """Return the kernel transform of a convolution's weight, four times over.

    Args:
        weight: [filters, channels, 3, 3], float16 or float32.

    Returns:
        [16, channels, filters], as the weight's type; four times G g G^T, since tiles are quartered.
    """
    filters, channels = weight.shape[:2]
    both = np.einsum("ij,lk->iljk", _KERNEL, _KERNEL).reshape(16, 9) / _QUARTER
    result = np.empty((16, channels, filters), weight.dtype)
    # A part at a time, so that float32 and the changed order stay in the processor's cache.
    for start in range(0, channels, _CHANNELS_AT_ONCE):
        part = weight[:, start : start + _CHANNELS_AT_ONCE].astype(np.float32)
        columns = part.reshape(filters, -1, 9).transpose(2, 1, 0).reshape(9, -1)
        result[:, start : start + _CHANNELS_AT_ONCE] = (both @ columns).reshape(16, -1, filters)
    return result


def _write_out(node: ir.Node, conv: ConvolutionSizes, weight: ir.Value, writer: NodeWriter) -> None:
    data, _, *bias = node.inputs
    assert data is not None and node.graph is not None and weight.dtype is not None
    writer.start(node)
    add, constant = writer.add, writer.constant
    images, channels, filters = conv.images, conv.channels, conv.filters
    dtype = weight.dtype.numpy()
    down, across = (side // 2 for side in conv.outside)
    tiles = down * across
    pixels_of_tiles = replace(conv, strides=(2, 2)).pixels_seen((down, across), (4, 4)).reshape(16, tiles)
    input_transform = np.einsum("ij,kl->ikjl", _INPUT, _INPUT).reshape(16, 16) * _QUARTER
    output_transform = np.einsum("ij,kl->ikjl", _OUTPUT, _OUTPUT).reshape(4, 16)

    # Channels come last: each tile's pixels are rows to gather, and the products need nothing transposed. The
    # images are further tiles: a stack of products over one weight is slow on DirectML.
    padded = add("Transpose", add("Pad", data, constant(conv.zeros())), perm=[2, 3, 0, 1])
    pixels = add("Reshape", padded, constant([-1, images * channels]))
    squares = []
    for part in np.array_split(pixels_of_tiles, min(tiles, _turns(conv, dtype.itemsize)), axis=1):
        count = part.shape[1]
        gathered = add("Gather", pixels, constant(part, np.int32), axis=0)
        flat = add("Reshape", gathered, constant([16, count * images * channels]))
        changed = add("MatMul", constant(input_transform, dtype), flat)
        products = add("MatMul", add("Reshape", changed, constant([16, count * images, channels])), weight)
        flat = add("Reshape", products, constant([16, count * images * filters]))
        square = add("MatMul", constant(output_transform, dtype), flat)
        squares.append(add("Reshape", square, constant([4, count, images * filters])))
    joined = add("Concat", *squares, axis=1) if len(squares) > 1 else squares[0]
    apart = add("Reshape", joined, constant([2, 2, down, across, images, filters]))
    ordered = add("Transpose", apart, perm=[4, 5, 2, 0, 3, 1])
    result = add("Reshape", ordered, constant([images, filters, *conv.outside]))
    if bias and bias[0] is not None:
        result = add("Add", result, add("Unsqueeze", bias[0], constant([1, 2])))
    take_place(result, node.outputs[0])
    node.graph.remove(node, safe=True)


def _turns(conv: ConvolutionSizes, itemsize: int) -> int:
    """Return in how many parts the tiles are computed, one after the other."""
    # Tiles overlap by half, down and across: 16 numbers for 4 pixels.
    largest = 4 * conv.output_pixels * max(conv.channels, conv.filters) * itemsize
    return -(-largest // MOST_BYTES)

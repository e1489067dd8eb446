"""Sizes of a convolution, for the passes that write one out."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from conversions.shape_inference import static_shape


@dataclass(frozen=True, kw_only=True)
class ConvolutionSizes:
    """Sizes of a two-dimensional convolution of one group.

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

    @property
    def output_pixels(self) -> int:
        """Pixels of the output, of all images together."""
        return self.images * prod(self.outside)

    def zeros(self) -> list[int]:
        """Return the padding as the operator Pad takes it: before and after each dimension."""
        return [0, 0, *self.padding[:2], 0, 0, *self.padding[2:]]

    def pixels_seen(self, starts: tuple[int, int], kernel: tuple[int, int]) -> NDArray[np.int32]:
        """Return which pixels of the padded input windows see, a window at every ``strides``.

        Args:
            starts: Number of windows down and across.
            kernel: Height and width of a window.

        Returns:
            [kernel rows, kernel columns, windows], int32; pixels are numbered row by row.
        """
        width = self.padding[1] + self.width + self.padding[3]
        down, across = np.indices(starts).reshape(2, -1)
        rows, columns = (np.arange(size)[..., np.newaxis] for size in kernel)
        y = down * self.strides[0] + rows * self.dilations[0]
        x = across * self.strides[1] + columns * self.dilations[1]
        return (y[:, np.newaxis] * width + x).astype(np.int32)


def sizes_of(node: ir.Node) -> ConvolutionSizes | None:
    """Return the sizes of a Conv.

    Args:
        node: A Conv with known shapes.

    Returns:
        None unless it has two dimensions, one group and explicit padding.
    """
    data, weight = (static_shape(each) if each is not None else None for each in node.inputs[:2])
    output = static_shape(node.outputs[0])
    attributes = node.attributes
    if data is None or weight is None or output is None or len(data) != 4:
        return None
    if attributes.get_int("group", 1) != 1 or attributes.get_string("auto_pad", "NOTSET") != "NOTSET":
        return None

    def pair(name: str) -> tuple[int, int]:
        down, across = attributes.get_ints(name, (1, 1))
        return (down, across)

    above, left, below, right = attributes.get_ints("pads", (0, 0, 0, 0))
    return ConvolutionSizes(
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

"""How far operators on images look around a pixel, and what they do to the size of an image."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from conversions.errors import ConversionError
from conversions.shape_inference import known_value, static_shape

_ON_EACH_PIXEL = frozenset(
    {
        *("Add", "Sub", "Mul", "Div", "Cast", "Clip", "Identity", "Neg"),
        *("Sigmoid", "Tanh", "Relu", "LeakyRelu", "Gelu", "Sqrt", "Max", "Min"),
    }
)


@dataclass(frozen=True, kw_only=True)
class Spread:
    """A value that was computed from a window of the image.

    Attributes:
        scale: Its pixels for each pixel of the lowest resolution.
        margin: Pixels at each edge of the window that are wrong where the image goes on beyond it.
    """

    scale: int
    margin: int = 0


def spread(node: ir.Node, inputs: tuple[Spread, ...]) -> Spread:
    """Return what a node makes of windows.

    Rules:
        1. Operators on each pixel, a group norm with given statistics among them, keep scale and margin.
           Constants are the same at each pixel.
        2. A Conv that keeps the size makes the margin larger by its padding; with a stride it divides the
           size and the margin.
        3. A Resize repeats each pixel, a whole number of times.

    Args:
        node: A node of a graph, the shapes of whose constants are known.
        inputs: Of its inputs that are images.

    Raises:
        ConversionError: ``tiling.operator``: the node is none of these.
    """
    margin = max(each.margin for each in inputs)
    scale = inputs[0].scale
    if any(each.scale != scale for each in inputs):
        raise refused(node, "its inputs differ in size")
    if (node.domain, node.op_type) == ("com.microsoft", "GroupNorm"):
        if node.attributes.get_int("channels_last", 1):
            raise refused(node, "its channels come last")
        return Spread(scale=scale, margin=margin)
    if node.domain:
        raise refused(node)
    if node.op_type in _ON_EACH_PIXEL:
        for value in node.inputs:
            if value is not None and value.is_initializer() and not _same_at_each_pixel(value):
                raise refused(node, "its constant differs from pixel to pixel")
        return Spread(scale=scale, margin=margin)
    if node.op_type == "Conv":
        step, padding = stride(node), _padding(node)
        if scale % step:
            raise refused(node, "its stride does not divide the image")
        return Spread(scale=scale // step, margin=-(-(margin + padding) // step))
    if node.op_type == "Resize":
        times = _repeats(node)
        return Spread(scale=scale * times, margin=margin * times)
    raise refused(node)


def refused(node: ir.Node, why: str = "") -> ConversionError:
    """Return the error of a node that cannot be computed in tiles."""
    return ConversionError(
        "tiling.operator",
        f"{node.op_type} '{node.name or node.outputs[0].name}' cannot be computed in tiles"
        f"{f': {why}' if why else ''}.",
    )


def _same_at_each_pixel(value: ir.Value) -> bool:
    shape = static_shape(value)
    return shape is not None and all(size == 1 for size in shape[-2:])


def stride(conv: ir.Node) -> int:
    """Return the stride of a convolution, the larger of two."""
    return max(conv.attributes.get_ints("strides", (1, 1)) or (1, 1))


def _padding(node: ir.Node) -> int:
    """Return the padding of a convolution that divides the size of an image by its stride."""
    weight = node.inputs[1]
    shape = static_shape(weight) if weight is not None else None
    if shape is None or len(shape) != 4:
        raise refused(node, "it is not of two dimensions")
    attributes, step = node.attributes, stride(node)
    strides, dilations = (attributes.get_ints(name, (1, 1)) or (1, 1) for name in ("strides", "dilations"))
    pads = attributes.get_ints("pads", (0, 0, 0, 0)) or (0, 0, 0, 0)
    if attributes.get_string("auto_pad", "NOTSET") != "NOTSET" or min(strides) != step:
        raise refused(node, "it pads or strides by other means")
    for axis in (0, 1):
        reach = dilations[axis] * (shape[axis + 2] - 1)
        if not reach - step < pads[axis] + pads[axis + 2] <= reach:
            raise refused(node, "it changes the size")
    return max(pads)


def _repeats(node: ir.Node) -> int:
    attributes = node.attributes
    form = [
        attributes.get_string(name, usual)
        for name, usual in (
            ("mode", "nearest"),
            ("coordinate_transformation_mode", "half_pixel"),
            ("nearest_mode", "round_prefer_floor"),
        )
    ]
    scales = known_value(node.inputs[2]) if len(node.inputs) == 3 else None
    if form != ["nearest", "asymmetric", "floor"] or scales is None or scales.size != 4:
        raise refused(node, "it does not repeat pixels")
    times = int(scales[-1])
    if scales.tolist() != [1, 1, times, times] or times < 1:
        raise refused(node, "it does not repeat pixels a whole number of times")
    return times

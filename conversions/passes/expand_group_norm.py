"""Pass: ``com.microsoft.GroupNorm`` in operators that every provider has."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from conversions.errors import ConversionError
from conversions.passes.rewiring import NodeWriter, take_place
from conversions.shape_inference import infer_shapes, static_shape


def expand_group_norm(model: ir.Model) -> int:
    """Write every GroupNorm as instance normalisation over groups, in place; the inverse of the fusion.

    A session that has no kernel for GroupNorm (ONNX Runtime's CPU provider) gets its graph through this pass
    when it is loaded; the weights stay in the package's one file.

    Rules:
        1. Channels-first GroupNorm becomes Reshape to [0, groups, -1, 0], InstanceNormalization by one and
           zero, Reshape to [0, channels, -1, 0], Mul and Add with the factors and summands unsqueezed to one
           a channel.
        2. ``activation = 1`` becomes Sigmoid and Mul.

    Args:
        model: A model whose weights may have no values.

    Returns:
        How many operators were expanded.

    Raises:
        ConversionError: A GroupNorm is channels-last or its weights have no shape; this project never writes
            such a one.
    """
    writer = NodeWriter(model.graph, "group_norm")
    nodes = [node for node in model.graph if node.op_type == "GroupNorm" and node.domain == "com.microsoft"]
    if any(image is not None and image.dtype is None for node in nodes for image in node.inputs[:1]):
        infer_shapes(model)
    for node in nodes:
        writer.start(node)
        take_place(_written_out(node, writer), node.outputs[0])
        model.graph.remove(node, safe=True)
    return len(nodes)


def _written_out(node: ir.Node, writer: NodeWriter) -> ir.Value:
    image, factor, summand = node.inputs[:3]
    shape = static_shape(factor) if factor is not None else None
    groups = int(node.attributes.get_int("groups", 0) or 0)
    if image is None or factor is None or summand is None or shape is None or not groups:
        raise _unknown(node, "GroupNorm without weights")
    if node.attributes.get_int("channels_last", 1):
        raise _unknown(node, "channels-last GroupNorm")
    element = image.dtype or ir.DataType.FLOAT
    if factor.dtype != element:
        factor, summand = (writer.add("Cast", value, to=element) for value in (factor, summand))
    ones = writer.constant(np.ones(groups), element.numpy())
    zeros = writer.constant(np.zeros(groups), element.numpy())

    grouped = writer.add("Reshape", image, writer.constant([0, groups, -1, 0]))
    epsilon = float(node.attributes.get_float("epsilon", 1e-5) or 0.0)
    normal = writer.add("InstanceNormalization", grouped, ones, zeros, epsilon=epsilon)
    back = writer.add("Reshape", normal, writer.constant([0, shape[0], -1, 0]))
    axes = writer.constant([1, 2])
    scaled = writer.add("Mul", back, writer.add("Unsqueeze", factor, axes))
    result = writer.add("Add", scaled, writer.add("Unsqueeze", summand, axes))
    if node.attributes.get_int("activation", 0):
        result = writer.add("Mul", result, writer.add("Sigmoid", result))
    return result


def _unknown(node: ir.Node, what: str) -> ConversionError:
    return ConversionError("graph.group_norm", f"'{node.name}' is a {what}, which cannot be expanded.")

"""Pass: group normalisation, and the SiLU after it, as one operator."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from conversions.passes.rewiring import only_reader, take_place
from conversions.shape_inference import infer_shapes, known_value, static_shape

DOMAIN = "com.microsoft"


def fuse_group_norm(model: ir.Model) -> int:
    """Write Reshape, InstanceNormalization, Reshape, Mul, Add as ``com.microsoft.GroupNorm``, in place.

    For providers that have a kernel for it (DirectML, channels first); ONNX Runtime's CPU provider has none,
    so a CPU session expands it again with :func:`conversions.passes.expand_group_norm.expand_group_norm`.

    Rules:
        1. The instance normalisation scales by one and adds zero; the group count is the length of its scale.
        2. The Reshape before it groups the channels of a 4-D tensor: its shape is [0, groups, -1] or
           [0, groups, -1, 0].
        3. The Reshape after it gives the tensor its shape back: its shape is the same tensor's Shape, the
           same constant shape, or [0, channels, -1, 0].
        4. Mul and Add apply one factor and one summand a channel: initializers of the shape [channels]
           behind an Unsqueeze, or of [channels, 1, 1], which nothing else reads; those become [channels].
        5. A Sigmoid and a Mul that make a SiLU of the sum become ``activation = 1`` when nothing else reads
           the sum.

    Args:
        model: A model whose weights may have no values.

    Returns:
        How many operators were written.

    Source: com.microsoft.GroupNorm in ONNX Runtime's ContribOperators.md.
    """
    infer_shapes(model)
    fused = sum(
        _fuse(model.graph, node) for node in list(model.graph) if node.op_type == "InstanceNormalization"
    )
    if fused:
        model.opset_imports.setdefault(DOMAIN, 1)
        _drop_unread(model.graph)
    return fused


def _fuse(graph: ir.Graph, norm: ir.Node) -> bool:
    scale, shift = known_value(norm.inputs[1]), known_value(norm.inputs[2])
    before = _producer(norm.inputs[0], "Reshape")
    after = only_reader(norm.outputs[0], "Reshape")
    if scale is None or shift is None or before is None or after is None:
        return False
    if not np.all(scale == 1) or np.any(shift):
        return False
    image, groups = before.inputs[0], int(scale.size)
    scaling = only_reader(after.outputs[0], "Mul")
    adding = only_reader(scaling.outputs[0], "Add") if scaling else None
    if image is None or scaling is None or adding is None or not _groups_channels(before, groups):
        return False
    factor = _per_channel(_other_input(scaling, after.outputs[0]), groups)
    summand = _per_channel(_other_input(adding, scaling.outputs[0]), groups)
    if factor is None or summand is None or _length(factor) != _length(summand):
        return False
    if not _gives_shape_back(after, image, _length(factor)):
        return False
    for value in (factor, summand):
        _flatten(value)
    last, activation = _through_silu(adding)
    fused = ir.node(
        "GroupNorm",
        [image, factor, summand],
        attributes={
            "activation": activation,
            "channels_last": 0,
            "epsilon": float(norm.attributes.get_float("epsilon", 1e-5) or 0.0),
            "groups": groups,
        },
        domain=DOMAIN,
        name=f"{norm.name or norm.outputs[0].name}_group_norm",
    )
    graph.insert_before(last, fused)
    take_place(fused.outputs[0], last.outputs[0])
    return True


def _producer(value: ir.Value | None, operator: str) -> ir.Node | None:
    node = value.producer() if value is not None else None
    return node if node is not None and node.op_type == operator else None


def _other_input(node: ir.Node, value: ir.Value) -> ir.Value | None:
    first, second = node.inputs
    return second if first is value else first


def _per_channel(value: ir.Value | None, groups: int) -> ir.Value | None:
    """Find the initializer of one element a channel, in the form or behind the view that broadcasts it."""
    view = _producer(value, "Unsqueeze")
    if view is not None:
        value = view.inputs[0]
    if value is None or not value.is_initializer():
        return None
    shape = static_shape(value)
    if shape is None or shape[0] % groups or shape != ((shape[0],) if view else (shape[0], 1, 1)):
        return None
    return value if view or len(value.uses()) == 1 else None


def _length(value: ir.Value) -> int:
    shape = static_shape(value)
    return shape[0] if shape else 0


def _flatten(value: ir.Value) -> None:
    """Drop the ones from an initializer's shape; its bytes stay where they are."""
    shape, tensor = ir.Shape([_length(value)]), value.const_value
    value.shape = shape
    if isinstance(tensor, ir.ExternalTensor):
        value.const_value = ir.ExternalTensor(
            tensor.location,
            tensor.offset,
            tensor.length,
            tensor.dtype,
            shape=shape,
            name=tensor.name,
            base_dir=tensor.base_dir,
        )
    elif tensor is not None:
        value.const_value = ir.tensor(tensor.numpy().reshape(-1), name=value.name)


def _groups_channels(reshape: ir.Node, groups: int) -> bool:
    target = known_value(reshape.inputs[1])
    return target is not None and target.tolist() in ([0, groups, -1], [0, groups, -1, 0])


def _gives_shape_back(reshape: ir.Node, image: ir.Value, channels: int) -> bool:
    target = reshape.inputs[1]
    if image.shape is None or len(image.shape) != 4:
        return False
    asked = _producer(target, "Shape")
    if asked is not None:
        return (
            asked.inputs[0] is image
            and not asked.attributes.get_int("start", 0)
            and "end" not in asked.attributes
        )
    numbers = known_value(target)
    if numbers is None:
        return False
    shape = static_shape(image)
    return numbers.tolist() == [0, channels, -1, 0] or (shape is not None and numbers.tolist() == list(shape))


def _through_silu(adding: ir.Node) -> tuple[ir.Node, int]:
    """Return the node that ends the pattern, and whether a SiLU is part of it."""
    total = adding.outputs[0]
    readers = {use.node for use in total.uses()}
    sigmoid = next((node for node in readers if node.op_type == "Sigmoid"), None)
    if sigmoid is None or len(readers) != 2 or total.is_graph_output():
        return adding, 0
    product = only_reader(sigmoid.outputs[0], "Mul")
    if product is None or set(product.inputs) != {total, sigmoid.outputs[0]} or product not in readers:
        return adding, 0
    return product, 1


def _drop_unread(graph: ir.Graph) -> None:
    for node in reversed(graph):
        if not any(output.uses() or output.is_graph_output() for output in node.outputs):
            graph.remove(node, safe=True)
    for name, value in list(graph.initializers.items()):
        if not value.uses() and not value.is_graph_output():
            del graph.initializers[name]

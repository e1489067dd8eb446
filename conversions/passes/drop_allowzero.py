"""Pass: Reshape without ``allowzero`` where the attribute changes nothing."""

from __future__ import annotations

import onnx_ir as ir

from conversions.shape_inference import known_value

# What picks sizes out of others; Concat and Mul put them together.
_KEEPS_SIZES = frozenset({"Cast", "Gather", "Identity", "Reshape", "Slice", "Squeeze", "Unsqueeze"})


def drop_allowzero(model: ir.Model) -> int:
    """Remove ``allowzero`` from every Reshape whose shape holds no zero, in place.

    The attribute only says what a zero means: an empty dimension instead of the input's own. The exporter
    writes it on views, and DirectML cannot make the kernel of one that has it beside a -1 (80070057 when
    the session is created).

    Rules:
        1. A constant shape without a zero needs no ``allowzero``.
        2. Neither does a shape that is put together from such constants and sizes of tensors: no tensor of
           these models is empty.

    Args:
        model: A model whose weights may have no values.

    Returns:
        How many nodes were changed.
    """
    changed = 0
    for node in model.graph:
        if node.op_type == "Reshape" and node.attributes.get_int("allowzero", 0) == 1:
            shape = node.inputs[1]
            if shape is not None and _has_no_zero(shape):
                del node.attributes["allowzero"]
                changed += 1
    return changed


def _has_no_zero(value: ir.Value) -> bool:
    numbers = known_value(ir.Value(const_value=ir.convenience.get_const_tensor(value)))
    if numbers is not None:
        return bool((numbers != 0).all())
    node = value.producer()
    if node is None:
        return False
    if node.op_type == "Shape":
        return True
    if node.op_type in ("Concat", "Mul"):
        return all(each is not None and _has_no_zero(each) for each in node.inputs)
    first = node.inputs[0] if node.op_type in _KEEPS_SIZES else None
    return first is not None and _has_no_zero(first)

"""Pass: zeros around an image, and the convolution that reads them, as one convolution with padding."""

from __future__ import annotations

import onnx_ir as ir

from conversions.passes.rewiring import only_reader
from conversions.shape_inference import known_value


def fold_pad(model: ir.Model) -> None:
    """Give the zeros of each Pad to the Conv that alone reads them, in place.

    Args:
        model: A model whose weights may have no values.
    """
    for node in [node for node in model.graph if node.op_type == "Pad"]:
        conv = only_reader(node.outputs[0], "Conv")
        pads = known_value(node.inputs[1]) if len(node.inputs) > 1 else None
        if conv is None or pads is None or pads.size != 8 or not _is_of_zeros(node):
            continue
        image = [int(number) for number in (*pads[2:4], *pads[6:8])]
        if any((*pads[:2], *pads[4:6])) or conv.attributes.get_string("auto_pad", "NOTSET") != "NOTSET":
            continue
        own = conv.attributes.get_ints("pads", (0, 0, 0, 0)) or (0, 0, 0, 0)
        conv.attributes["pads"] = ir.AttrInt64s(
            "pads", [first + second for first, second in zip(own, image, strict=True)]
        )
        conv.replace_input_with(0, node.inputs[0])
        model.graph.remove(node, safe=True)


def _is_of_zeros(pad: ir.Node) -> bool:
    value = pad.inputs[2] if len(pad.inputs) > 2 else None
    number = None if value is None else known_value(value)
    given = value is None or (number is not None and not number.any())
    return given and pad.attributes.get_string("mode", "constant") == "constant" and len(pad.inputs) < 4

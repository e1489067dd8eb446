"""Pass: ``com.microsoft.GroupNorm`` and ``SkipGroupNorm`` with channels last, as kernels want them."""

from __future__ import annotations

import onnx_ir as ir

from conversions.passes.rewiring import NodeWriter, take_place

SKIP = 3
"""Place of what SkipGroupNorm adds to the image."""


def group_norm_channels_last(model: ir.Model) -> int:
    """Write every channels-first GroupNorm or SkipGroupNorm as Transposes and a channels-last one, in place.

    Where convolutions run with channels last too, ONNX Runtime cancels the Transposes against theirs.

    Rules:
        1. The image, and what SkipGroupNorm adds to it where that has the image's shape, is transposed from
           [N, C, H, W] to [N, H, W, C] and back.
        2. Factors and summands become float32, which the kernel reads whatever the image's type.

    Args:
        model: A model whose weights may have no values.

    Returns:
        How many operators were changed.

    Source: ONNX Runtime, contrib_ops/cuda/diffusion/group_norm.cc.
    """
    writer = NodeWriter(model.graph, "group_norm")
    nodes = [
        node
        for node in model.graph
        if node.op_type in ("GroupNorm", "SkipGroupNorm")
        and node.domain == "com.microsoft"
        and not node.attributes.get_int("channels_last", 1)
    ]
    for node in nodes:
        writer.start(node)
        image, *weights = node.inputs[:3]
        for place, value in enumerate(node.inputs):
            if value is image or (place == SKIP and value is not None and len(value.shape or ()) == 4):
                node.replace_input_with(place, writer.add("Transpose", value, perm=[0, 2, 3, 1]))
        for place, weight in enumerate(weights, start=1):
            if weight is not None and weight.dtype != ir.DataType.FLOAT:
                node.replace_input_with(place, writer.add("Cast", weight, to=ir.DataType.FLOAT))
        node.attributes["channels_last"] = ir.AttrInt64("channels_last", 1)
        for result in node.outputs:
            name = f"{result.name}/back"
            back = ir.node("Transpose", [result], attributes={"perm": [0, 3, 1, 2]}, name=name)
            take_place(back.outputs[0], result)
            back.replace_input_with(0, result)
            result.shape = None
            model.graph.insert_after(node, back)
    return len(nodes)

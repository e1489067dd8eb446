"""Pass: ``com.microsoft.GroupNorm`` with channels last, for providers whose kernel takes no other."""

from __future__ import annotations

import onnx_ir as ir

from conversions.passes.rewiring import NodeWriter, take_place


def group_norm_channels_last(model: ir.Model) -> int:
    """Write every channels-first GroupNorm as Transpose, channels-last GroupNorm and Transpose, in place.

    Where convolutions run with channels last too, ONNX Runtime cancels the Transposes against theirs.

    Rules:
        1. The image is transposed from [N, C, H, W] to [N, H, W, C] and back.
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
        if node.op_type == "GroupNorm"
        and node.domain == "com.microsoft"
        and not node.attributes.get_int("channels_last", 1)
    ]
    for node in nodes:
        writer.start(node)
        image, *weights = node.inputs[:3]
        result = node.outputs[0]
        node.replace_input_with(0, writer.add("Transpose", image, perm=[0, 2, 3, 1]))
        for place, weight in enumerate(weights, start=1):
            if weight is not None and weight.dtype != ir.DataType.FLOAT:
                node.replace_input_with(place, writer.add("Cast", weight, to=ir.DataType.FLOAT))
        node.attributes["channels_last"] = ir.AttrInt64("channels_last", 1)
        back = ir.node("Transpose", [result], attributes={"perm": [0, 3, 1, 2]}, name=f"{node.name}/back")
        take_place(back.outputs[0], result)
        back.replace_input_with(0, result)
        result.shape = None
        model.graph.insert_after(node, back)
    return len(nodes)

"""Pass: ``ArgMax`` of whole numbers in float32, for providers whose kernel takes floats alone."""

from __future__ import annotations

import onnx_ir as ir

from conversions.passes.rewiring import NodeWriter
from conversions.shape_inference import infer_shapes

_WHOLE = frozenset({ir.DataType.INT32, ir.DataType.INT64})


def argmax_in_float(model: ir.Model) -> int:
    """Cast what every ArgMax of integers reads to float32, in place.

    The text encoder looks for the highest token id. ONNX Runtime's CUDA provider has ArgMax for floats alone
    and would send this one node to the CPU and back. Token ids are below 2**24, so float32 holds them
    exactly; float16 would not, so this belongs after the pass that halves a graph.

    Args:
        model: A model whose weights may have no values.

    Returns:
        How many operators were given a Cast.

    Source: ONNX Runtime, docs/OperatorKernels.md, CUDAExecutionProvider.
    """
    nodes = [node for node in model.graph if node.op_type == "ArgMax" and node.domain == ""]
    if any(node.inputs[0] is not None and node.inputs[0].dtype is None for node in nodes):
        infer_shapes(model)
    writer = NodeWriter(model.graph, "argmax")
    cast = 0
    for node in nodes:
        numbers = node.inputs[0]
        if numbers is not None and numbers.dtype in _WHOLE:
            writer.start(node)
            node.replace_input_with(0, writer.add("Cast", numbers, to=ir.DataType.FLOAT))
            cast += 1
    return cast

"""Pass: a float16 graph computes in float32 on its float16 weights."""

from __future__ import annotations

import onnx_ir as ir

_FLOAT = ir.DataType.FLOAT
_HALF = ir.DataType.FLOAT16


def upcast_to_fp32(model: ir.Model) -> None:
    """Turn a float16 model into a float32 one over the same stored weights, in place.

    Rules:
        1. Every float16 initializer stays as it is stored; its readers get it through one Cast, which stands
           before the first of them, so that a float32 copy need not exist before.
        2. Float16 graph inputs, outputs and values become float32.
        3. A Cast to float16 becomes a Cast to float32.

    Args:
        model: The model, without subgraphs; its weights may be anywhere.
    """
    graph = model.graph
    for node in graph:
        if node.op_type == "Cast" and node.attributes.get_int("to", 0) == _HALF:
            node.attributes["to"] = ir.AttrInt64("to", _FLOAT)
        for output in node.outputs:
            if output.dtype is _HALF:
                output.dtype = _FLOAT
    for value in (*graph.inputs, *graph.outputs):
        if value.dtype is _HALF:
            value.dtype = _FLOAT
    places = {node: place for place, node in enumerate(graph)}
    for value in list(graph.initializers.values()):
        if value.dtype is not _HALF or not value.uses():
            continue
        first = min((use.node for use in value.uses()), key=places.__getitem__)
        cast = ir.node("Cast", [value], {"to": _FLOAT}, name=f"{value.name}_upcast")
        cast.outputs[0].name = cast.name
        ir.convenience.replace_all_uses_with(value, cast.outputs[0])
        cast.replace_input_with(0, value)
        graph.insert_before(first, cast)

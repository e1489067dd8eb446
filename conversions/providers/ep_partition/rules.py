"""Attribute and shape rules of DirectML's kernels: nodes they reject, and nodes they accept and fail on.

Source: the support queries and kernel constructors of ONNX Runtime 1.24.0,
core/providers/dml/DmlExecutionProvider/ src/Operators, reimplemented; the shape limits come from issues and
from sessions over onnxruntime-directml 1.24.4, where ``tests/windows`` asks again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import onnx_ir as ir

from conversions.shape_inference import known_value

Rule = Callable[[ir.Node], str]
"""Returns why a node does not fit, or an empty string."""


def _has(values: Sequence[ir.Value | None], index: int) -> bool:
    return index < len(values) and values[index] is not None


def _int(node: ir.Node, name: str, default: int = 0) -> int:
    return int(node.attributes.get_int(name, default) or 0)


def _text(node: ir.Node, name: str, default: str = "") -> str:
    return str(node.attributes.get_string(name, default))


def _no_cubic(node: ir.Node) -> str:
    if _text(node, "mode", "nearest") == "cubic":
        return "Resize with mode 'cubic'"
    if _int(node, "exclude_outside"):
        return "Resize with exclude_outside"
    if node.attributes.get_float("extrapolation_value", 0.0):
        return "Resize with an extrapolation value"
    return ""


def _one_output(node: ir.Node) -> str:
    return "a second output" if len(node.outputs) > 1 else ""


def _no_statistics(node: ir.Node) -> str:
    wanted = [output for output in node.outputs[1:3] if output.uses() or output.is_graph_output()]
    return "mean or variance as an output" if wanted else ""


def _five_inputs(node: ir.Node) -> str:
    return "more than five inputs" if len(node.inputs) > 5 else ""


def _no_reduction(node: ir.Node) -> str:
    return "a reduction" if _text(node, "reduction", "none") != "none" else ""


def _inference_only(node: ir.Node) -> str:
    return "training_mode" if _int(node, "training_mode") else ""


def _row_major_indices(node: ir.Node) -> str:
    return "column-major indices" if _int(node, "storage_order") else ""


def _sequence_major(node: ir.Node) -> str:
    return "batch-major layout" if _int(node, "layout") else ""


def _no_wrap(node: ir.Node) -> str:
    mode = _text(node, "mode", "constant")
    return "" if mode in ("constant", "reflect", "edge") else f"Pad with mode '{mode}'"


def _no_past(node: ir.Node) -> str:
    if _has(node.inputs, 4) or _has(node.inputs, 6) or len(node.outputs) > 1:
        return "past or present state"
    for name in ("unidirectional", "do_rotary", "past_present_share_buffer"):
        if _int(node, name):
            return name
    return ""


def _four_or_eight_bits(node: ir.Node) -> str:
    return "" if _int(node, "bits", 4) in (4, 8) else "neither 4 nor 8 bits"


def _constant_scale(node: ir.Node) -> str:
    scales = [node.inputs[index] for index in (1, 3) if _has(node.inputs, index)]
    return "" if all(value is not None and value.is_initializer() for value in scales) else "a computed scale"


def _known_equation(node: ir.Node) -> str:
    return "Einsum of more than two tensors" if len(node.inputs) > 2 else ""


ATTRIBUTE_RULES: dict[str, Rule] = {
    "no_cubic": _no_cubic,
    "one_output": _one_output,
    "no_statistics": _no_statistics,
    "five_inputs": _five_inputs,
    "no_reduction": _no_reduction,
    "inference_only": _inference_only,
    "row_major_indices": _row_major_indices,
    "sequence_major": _sequence_major,
    "no_wrap": _no_wrap,
    "no_past": _no_past,
    "four_or_eight_bits": _four_or_eight_bits,
    "constant_scale": _constant_scale,
    "known_equation": _known_equation,
}
"""Rules named in the kernel table: a node that violates one runs on the CPU."""


def _rank(value: ir.Value | None) -> int | None:
    return None if value is None or value.shape is None else len(value.shape)


def _matmul_rank(node: ir.Node) -> str:
    ranks = [_rank(value) for value in node.inputs]
    highest = max((rank for rank in ranks if rank is not None), default=0)
    return f"{node.op_type} of {highest} dimensions; 4 is the most" if highest > 4 else ""


def _group_norm_form(node: ir.Node) -> str:
    if _rank(node.inputs[0]) not in (None, 4):
        return "GroupNorm of other than 4 dimensions"
    return "" if len(node.inputs) == 3 else "GroupNorm without exactly three inputs"


def _attention_form(node: ir.Node) -> str:
    query, bias = node.inputs[0], node.inputs[5] if _has(node.inputs, 5) else None
    if query is None or query.shape is None or bias is None or bias.shape is None or len(bias.shape) != 4:
        return ""
    whole = (query.shape[0], _int(node, "num_heads"))
    return "" if tuple(bias.shape)[:2] == whole else "an attention bias that would have to be broadcast"


def _no_allowzero(node: ir.Node) -> str:
    shape = known_value(node.inputs[1])
    if shape is None or not _int(node, "allowzero") or -1 not in shape:
        return ""
    return "Reshape with allowzero and a -1 in its shape"


SHAPE_RULES: dict[str, Rule] = {
    "Reshape": _no_allowzero,
    "MatMul": _matmul_rank,
    "com.microsoft.FusedMatMul": _matmul_rank,
    "com.microsoft.GroupNorm": _group_norm_form,
    "com.microsoft.MultiHeadAttention": _attention_form,
}
"""Limits that the support queries miss: DirectML accepts such a node, then opening a session fails."""

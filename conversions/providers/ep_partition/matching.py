"""Find the kernel of a provider that matches a node."""

from __future__ import annotations

import onnx
import onnx_ir as ir

from conversions.providers.ep_partition.rules import ATTRIBUTE_RULES
from conversions.providers.kernels import Kernel, KernelTable, versions

_SHORT = {
    ir.DataType.FLOAT: "f32", ir.DataType.FLOAT16: "f16", ir.DataType.DOUBLE: "f64",
    ir.DataType.BFLOAT16: "bf16",
    ir.DataType.INT8: "i8", ir.DataType.INT16: "i16", ir.DataType.INT32: "i32", ir.DataType.INT64: "i64",
    ir.DataType.UINT8: "u8", ir.DataType.UINT16: "u16", ir.DataType.UINT32: "u32", ir.DataType.UINT64: "u64",
    ir.DataType.BOOL: "bool", ir.DataType.STRING: "string",
}  # fmt: skip


def operator_of(node: ir.Node) -> str:
    """Return ``domain.Name``, without a domain for ``ai.onnx``."""
    return node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"


def schema_of(node: ir.Node, opsets: dict[str, int]) -> onnx.defs.OpSchema | None:
    """Return the schema a node follows under a model's opsets; None for what ONNX does not define."""
    try:
        return onnx.defs.get_schema(node.op_type, opsets.get(node.domain, 1), node.domain)
    except onnx.defs.SchemaError:
        return None


def find_kernel(node: ir.Node, opsets: dict[str, int], table: KernelTable) -> tuple[Kernel | None, int, str]:
    """Find a node's kernel in a kernel table.

    Returns:
        The kernel or None, the since-version of the node's operator, and why there is no kernel.
    """
    operator = operator_of(node)
    schema = schema_of(node, opsets)
    since = schema.since_version if schema else 1
    kernel = table.get((operator, since))
    if kernel is None:
        known = versions(table, operator)
        if not known:
            return None, since, f"no kernel for {operator}"
        return None, since, f"no kernel for {operator}-{since}, only for {', '.join(map(str, known))}"
    wrong = _wrong_type(node, kernel, schema)
    if wrong:
        return None, since, f"no kernel of {operator}-{since} for {wrong}"
    broken = ATTRIBUTE_RULES[kernel.rule](node) if kernel.rule else ""
    if broken:
        return None, since, f"no kernel of {operator}-{since} for {broken}"
    return kernel, since, ""


def _wrong_type(node: ir.Node, kernel: Kernel, schema: onnx.defs.OpSchema | None) -> str:
    formal_inputs = list(schema.inputs) if schema else []
    formal_outputs = list(schema.outputs) if schema else []
    every = frozenset().union(*kernel.types.values())
    for values, formals in ((node.inputs, formal_inputs), (node.outputs, formal_outputs)):
        for index, value in enumerate(values):
            if value is None or value.dtype is None:
                continue
            parameter = formals[min(index, len(formals) - 1)].type_str if formals else ""
            allowed = kernel.types.get(parameter, every if not schema else None)
            if allowed is None:
                continue
            name = _SHORT.get(value.dtype, value.dtype.name.lower())
            if name not in allowed and "sequence" not in allowed:
                return name
    return ""

"""Which kernel of a table a node has."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from conversions.providers.ep_partition.matching import find_kernel, operator_of, schema_of
from conversions.providers.kernels import Kernel, load_table

OPSETS = {"": 18, "com.microsoft": 1}
NAMES = {
    "FLOAT": "f32",
    "FLOAT16": "f16",
    "DOUBLE": "f64",
    "BFLOAT16": "bf16",
    "INT8": "i8",
    "INT16": "i16",
    "INT32": "i32",
    "INT64": "i64",
    "UINT8": "u8",
    "UINT16": "u16",
    "UINT32": "u32",
    "UINT64": "u64",
    "BOOL": "bool",
    "STRING": "string",
    "COMPLEX64": "complex64",
}


def node(operator: str, *types: str, domain: str = "", results: tuple[str, ...] = ("FLOAT",)) -> ir.Node:
    inputs = [ir.Value(name=f"i{n}", type=ir.TensorType(ir.DataType[each])) for n, each in enumerate(types)]
    made = ir.node(operator, inputs, domain=domain, num_outputs=len(results))
    for output, each in zip(made.outputs, results, strict=True):
        output.type = ir.TensorType(ir.DataType[each])
    return made


def kernel(operator: str, since: int, *, rule: str = "", **types: str) -> dict[tuple[str, int], Kernel]:
    allowed = {name: frozenset(each.split()) for name, each in types.items()}
    return {(operator, since): Kernel(operator=operator, since=since, types=allowed, rule=rule)}


@pytest.mark.parametrize(("dtype", "name"), NAMES.items())
def test_element_types_have_short_names(dtype: str, name: str) -> None:
    one = node("Relu", dtype, results=(dtype,))
    (table,) = (kernel("Relu", 14, T=name),)
    assert find_kernel(one, OPSETS, table) == (table["Relu", 14], 14, "")
    assert find_kernel(one, OPSETS, kernel("Relu", 14, T="none")) == (
        None,
        14,
        f"no kernel of Relu-14 for {name}",
    )


def test_results_have_types_as_well() -> None:
    cast = node("Cast", "FLOAT", results=("DOUBLE",))
    assert find_kernel(cast, OPSETS, kernel("Cast", 13, T1="f32", T2="f64"))[0] is not None
    assert find_kernel(cast, OPSETS, kernel("Cast", 13, T1="f32", T2="f32"))[2].endswith("for f64")
    assert find_kernel(cast, OPSETS, kernel("Cast", 13, T1="f64", T2="f64"))[2].endswith("for f32")


def test_the_last_parameter_stands_for_all_further_inputs() -> None:
    joined = node("Concat", "FLOAT", "FLOAT", "INT64")
    assert find_kernel(joined, OPSETS, kernel("Concat", 13, T="f32"))[2].endswith("for i64")
    assert find_kernel(joined, OPSETS, kernel("Concat", 13, T="f32 i64"))[0] is not None


def test_a_parameter_without_types_in_the_table_has_any() -> None:
    assert (
        find_kernel(node("Reshape", "FLOAT", "INT64"), OPSETS, kernel("Reshape", 14, T="f32"))[0] is not None
    )


def test_an_operator_without_a_schema_has_the_types_of_all_parameters() -> None:
    norm = node("GroupNorm", "FLOAT16", "FLOAT", domain="com.microsoft", results=("FLOAT16",))
    name = "com.microsoft.GroupNorm"
    assert find_kernel(norm, OPSETS, kernel(name, 1, T="f16", M="f32"))[0] is not None
    assert find_kernel(norm, OPSETS, kernel(name, 1, T="f16", M="f16")) == (
        None,
        1,
        "no kernel of com.microsoft.GroupNorm-1 for f32",
    )


def test_values_that_are_missing_or_no_tensors_have_no_wrong_type() -> None:
    resize = ir.node("Resize", [ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT)), None, None])
    assert find_kernel(resize, OPSETS, kernel("Resize", 18, T1="f32", T2="f32"))[0] is not None
    sequence = node("Relu", "INT8", results=("INT8",))
    assert find_kernel(sequence, OPSETS, kernel("Relu", 14, T="sequence"))[0] is not None


def test_what_is_missing_is_said() -> None:
    relu = node("Relu", "FLOAT")
    assert find_kernel(relu, OPSETS, {}) == (None, 14, "no kernel for Relu")
    known = kernel("Relu", 6, T="f32") | kernel("Relu", 13, T="f32")
    assert find_kernel(relu, OPSETS, known)[2] == "no kernel for Relu-14, only for 6, 13"
    assert find_kernel(relu, {"": 13}, known)[0] == known["Relu", 13]
    second = node("Dropout", "FLOAT", results=("FLOAT", "BOOL"))
    table = kernel("Dropout", 13, rule="one_output", T="f32", T1="f32", T2="bool")
    assert find_kernel(second, OPSETS, table) == (None, 13, "no kernel of Dropout-13 for a second output")


def test_operators_are_named_with_their_domain() -> None:
    assert (
        operator_of(node("Relu", "FLOAT")) == operator_of(node("Relu", "FLOAT", domain="ai.onnx")) == "Relu"
    )
    assert operator_of(node("Gelu", "FLOAT", domain="com.microsoft")) == "com.microsoft.Gelu"
    assert schema_of(node("Gelu", "FLOAT", domain="com.microsoft"), OPSETS) is None
    schema = schema_of(node("Relu", "FLOAT"), {"": 6})
    assert schema is not None
    assert schema.since_version == 6


def test_directml_has_kernels_of_what_models_are_made_of() -> None:
    table = load_table("directml")
    assert find_kernel(node("Conv", "FLOAT16", "FLOAT16", results=("FLOAT16",)), OPSETS, table)[0] is not None
    assert find_kernel(node("Conv", "DOUBLE", "DOUBLE", results=("DOUBLE",)), OPSETS, table)[0] is None

from __future__ import annotations

from dataclasses import replace

import onnx
import pytest

from conversions.providers.ep_partition.rules import ATTRIBUTE_RULES
from conversions.providers.kernels import Kernel, _row, _short, live_kernels, load_table, versions
from conversions.providers.table import PROVIDERS, provider_for


def test_every_row_of_the_table_names_a_schema_version_that_exists() -> None:
    # Experimental operators that ONNX dropped, and two that ONNX Runtime's own schemas add to ai.onnx.
    elsewhere = {
        "Affine", "Crop", "GroupNorm", "ImageScaler", "LayerNormalization", "MeanVarianceNormalization",
        "ParametricSoftplus", "ScaledTanh", "SimplifiedLayerNormalization", "ThresholdedRelu",
    }  # fmt: skip
    wrong = set()
    for operator, since in load_table("directml"):
        if "." in operator:
            continue
        try:
            if onnx.defs.get_schema(operator, since).since_version != since:
                wrong.add(f"{operator}-{since}")
        except onnx.defs.SchemaError:
            wrong.add(operator)

    assert wrong - {"Scatter-13", "If-7"} <= elsewhere


def test_every_type_parameter_of_the_table_is_one_of_its_schema() -> None:
    for (operator, since), kernel in load_table("directml").items():
        try:
            schema = onnx.defs.get_schema(operator, since)
        except onnx.defs.SchemaError:
            continue
        if schema.since_version == since:
            known = {item.type_param_str for item in schema.type_constraints}
            assert kernel.types.keys() <= known | {"T"}, operator


def test_every_rule_in_the_table_exists() -> None:
    assert {kernel.rule for kernel in load_table("directml").values() if kernel.rule} == set(ATTRIBUTE_RULES)


def test_opset_18_has_what_the_models_need_and_22_loses_convolution() -> None:
    table = load_table("directml")

    assert versions(table, "Conv") == [1, 11]
    assert onnx.defs.get_schema("Conv", 18).since_version == 11
    assert onnx.defs.get_schema("Conv", 22).since_version == 22
    assert table["com.microsoft.GroupNorm", 1].types["T"] == {"f32", "f16"}
    assert table["Reshape", 14].host_inputs == {1}
    assert not table["Shape", 15].fusible


def test_a_row_is_a_kernel_for_each_version() -> None:
    sets = {"all": frozenset({"f32", "i64"})}
    one, other = _row("Reshape\t5,13\tT=f32+f16 S=all\t1,2\tfused\t3\tallowzero", sets)
    assert one == Kernel(
        operator="Reshape",
        since=5,
        types={"T": frozenset({"f32", "f16"}), "S": frozenset({"f32", "i64"})},
        host_inputs=frozenset({1, 2}),
        fusible=True,
        fused_inputs=3,
        rule="allowzero",
    )
    assert other == replace(one, since=13)
    (plain,) = _row("com.microsoft.Gelu\t1\tT=f32\t-\tcpu\t-\t-", {})
    assert plain == Kernel(
        operator="com.microsoft.Gelu", since=1, types={"T": frozenset({"f32"})}, fusible=False
    )


def test_the_installed_runtime_tells_its_cpu_kernels() -> None:
    kernels = live_kernels("CPUExecutionProvider")

    assert "f32" in kernels["Conv", 22]["T"]
    assert ("com.microsoft.MultiHeadAttention", 1) in kernels
    assert ("com.microsoft.GroupNorm", 1) not in kernels


@pytest.mark.parametrize(
    ("name", "short"),
    [
        *(("tensor(float)", "f32"), ("tensor(float16)", "f16"), ("tensor(double)", "f64")),
        *(("tensor(bfloat16)", "bf16"), ("tensor(uint8)", "u8"), ("tensor(int64)", "i64")),
        *(("tensor(bool)", "bool"), ("seq(tensor(float))", "sequence"), ("float", "sequence")),
    ],
)
def test_types_have_short_names(name: str, short: str) -> None:
    assert _short(name) == short


def test_a_provider_that_is_not_installed_has_no_live_kernels() -> None:
    assert live_kernels("NoSuchExecutionProvider") == {}


@pytest.mark.parametrize("provider", PROVIDERS, ids=lambda provider: provider.target)
def test_every_row_of_the_provider_table_is_complete(provider: object) -> None:
    row = provider_for(provider.target)  # type: ignore[attr-defined]

    assert provider_for(row.name) is row
    assert row.name.endswith("ExecutionProvider")
    assert row.opset < (row.opset_limit or 99)
    assert not row.kernel_table or load_table(row.kernel_table)

"""Which precision a submodel has: the chosen one, its own, or float16 where it cannot be quantised."""

from __future__ import annotations

import pytest

from conversions.family import Submodel
from conversions.options import Options
from tests.conversions.test_graph_kind import kind


def submodel(name: str, *, quantizable: bool) -> Submodel:
    return Submodel(name=name, component=name, kind=kind(quantizable=quantizable), role="denoiser")


@pytest.mark.parametrize(
    ("options", "quantizable", "other", "own"),
    [
        (Options(), "fp16", "fp16", "fp16"),
        (Options(precision="fp32"), "fp32", "fp32", "fp32"),
        (Options(precision="int8"), "int8", "fp16", "int8"),
        (Options(precision="int4", precisions={"own": "int8"}), "int4", "fp16", "int8"),
        (Options(precision="fp32", precisions={"own": "fp16", "other": "int4"}), "fp32", "fp16", "fp16"),
        (Options(precision="int4", precisions={"own": "fp32", "other": "fp32"}), "int4", "fp32", "fp32"),
    ],
)
def test_a_submodel_s_precision(options: Options, quantizable: str, other: str, own: str) -> None:
    wanted = (
        (submodel("unet", quantizable=True), quantizable),
        (submodel("other", quantizable=False), other),
        (submodel("own", quantizable=True), own),
    )
    for part, precision in wanted:
        assert options.precision_of(part) == precision
        assert options.is_fp16(part) is (precision != "fp32")


def test_a_conversion_is_for_directml_in_float16_with_everything_unless_told() -> None:
    usual = Options()
    assert (usual.precision, usual.target, usual.safety_checker) == ("fp16", "directml", True)
    assert (usual.scheduler_class, dict(usual.precisions), usual.copy) == ("", {}, False)

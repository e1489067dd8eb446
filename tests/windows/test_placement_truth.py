"""The static placement check against DirectML itself, over some 340 graphs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import onnx_ir as ir
import pytest

from conversions.kernels import live_kernels, load_table
from conversions.placement import PlacementReport, check_placement
from tests.windows.placement_models import cases
from tests.windows.placement_truth import ask_all

pytestmark = [pytest.mark.windows, pytest.mark.directml, pytest.mark.timeout(1500)]

EXPANDED = "ONNX defines it by other operators, no provider has a kernel, and so ONNX Runtime writes it out"
UNKNOWN_SHAPE = "the check has no shape rule for an operator that this project never writes"
EXPLAINED = {
    "GroupNormalization float16 opset 21": EXPANDED,
    "GroupNormalization float opset 21": EXPANDED,
    "Gelu float16 opset 20": EXPANDED,
    "HardSwish float16": EXPANDED,
    "HardSwish float": EXPANDED,
    "Mish float16": EXPANDED,
    "Mish float": EXPANDED,
    "NhwcConv float16": UNKNOWN_SHAPE,
    "NhwcConv float": UNKNOWN_SHAPE,
}
"""Graphs on which the check and DirectML differ, and why; docs/explanation/directml.md tells more."""


def _same(report: PlacementReport, truth: dict[str, Any]) -> bool:
    """Whether the check said what happened.

    Three kinds of failed sessions tell the place as well: 80070057 is a kernel that DirectML took and could
    not make; a node that no provider took; and 80004005 while a fused graph is compiled, which is the place
    "fused" on a Direct3D without the shader.
    """
    places = {node.node: node.place for node in report.nodes}
    error = truth["error"]
    if "80070057" in error:
        return "refused" in places.values()
    if "is not set" in error or "Failed to find kernel" in error:
        return "cpu" in places.values()
    if "DmlGraphFusionHelper" in error and "80004005" in error:
        return set(places.values()) == {"fused"}
    found = {name: place for name, place in truth["places"].items() if place != "gone"}
    return not error and found == places and truth["partitions"] == report.partitions


def test_the_check_says_what_directml_does() -> None:
    graphs = cases()
    answers = {answer["case"]: answer for answer in ask_all(len(graphs))}

    wrong, differing = {}, set()
    for number, case in enumerate(graphs):
        report = check_placement(ir.from_proto(case.model()), "directml", case.sizes)
        if not _same(report, answers[number]):
            differing.add(case.name)
            if case.name not in EXPLAINED:
                wrong[case.name] = (report.as_dict(), answers[number])

    summary = {"graphs": len(graphs), "agree": len(graphs) - len(differing), "explained": sorted(differing)}
    print(json.dumps(summary))  # noqa: T201
    assert len(graphs) >= 200
    assert not wrong
    assert differing == set(EXPLAINED)


def test_the_kernel_table_is_the_runtimes_own() -> None:
    internal = ("com.microsoft.dml.", "Memcpy")
    live = {
        key: types
        for key, types in live_kernels("DmlExecutionProvider").items()
        if not key[0].startswith(internal)
    }
    table = {key: kernel.types for key, kernel in load_table("directml").items()}

    def tensors(types: Mapping[str, frozenset[str]]) -> dict[str, frozenset[str]]:
        return {name: kinds - {"sequence"} for name, kinds in types.items()}

    assert live
    assert live.keys() == table.keys()
    differing = {key: (live[key], table[key]) for key in live if tensors(live[key]) != tensors(table[key])}
    assert not differing

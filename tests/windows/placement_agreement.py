"""The static placement check against DirectML itself.

Run as ``python -m tests.windows python -m tests.windows.placement_agreement``; writes one JSON object: how
many graphs, on how many the check and DirectML agree, where they differ and why.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import onnx_ir as ir

from conversions.providers.ep_partition import PlacementReport, check_placement
from tests.windows.placement_models import cases
from tests.windows.placement_truth import ask

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
    "control flow": "places agree; DirectML fuses inside the branch that runs, where the check does not look",
}
"""Graphs on which the check and DirectML differ, and why; docs/explanation/directml.md tells more."""


def compare(numbers: list[int]) -> dict[str, Any]:
    """Ask DirectML and the check about some of the cases.

    Returns:
        ``graphs`` and ``agree`` (counts), ``explained`` (name to reason) and ``unexplained`` (name to both
        answers).
    """
    graphs = cases()
    explained, unexplained = {}, {}
    for number, truth in zip(numbers, ask(numbers), strict=True):
        case = graphs[number]
        report = check_placement(ir.from_proto(case.model()), "directml", case.sizes)
        if same(report, truth):
            continue
        if case.name in EXPLAINED:
            explained[case.name] = EXPLAINED[case.name]
        else:
            unexplained[case.name] = {"check": report.as_dict(), "directml": truth}
    agree = len(numbers) - len(explained) - len(unexplained)
    return {"graphs": len(numbers), "agree": agree, "explained": explained, "unexplained": unexplained}


def same(report: PlacementReport, truth: dict[str, Any]) -> bool:
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
    if error and not error.startswith("run:"):
        return False
    found = {name: place for name, place in truth["places"].items() if place != "gone"}
    return found == places and truth["partitions"] == report.partitions


if __name__ == "__main__":
    sys.stdout.write(json.dumps(compare(list(range(len(cases()))))) + "\n")

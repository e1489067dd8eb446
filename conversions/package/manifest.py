"""The manifest of a package: origin, contents, and parity with a reference."""

from __future__ import annotations

import importlib.metadata
import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import onnx_ir as ir

from conversions.checkpoint.folder import Checkpoint
from conversions.family import Submodel
from conversions.graph_kind import Config
from conversions.options import Options
from conversions.package.layout import FORMAT, Staging
from conversions.passes.quantize_weights import quantized_weights
from conversions.plan import ConversionPlan
from conversions.verification.fp16_overflow import LARGEST_FP16, OverflowingNode
from conversions.verification.parity import ParityReport
from conversions.weights.quantize import BLOCK

KEPT = "kept_fp32"
"""Key of a float16 submodel's nodes that stay in float32, with the reason; absent when there are none."""

_DISTRIBUTIONS = ("onnx", "onnx-ir", "numpy", "torch", "diffusers", "transformers", "onnxscript")


def make_manifest(
    plan: ConversionPlan, checkpoint: Checkpoint, staging: Staging, tool_version: str
) -> dict[str, Any]:
    """Make the manifest of a finished package; equal inputs give equal manifests.

    Its entry ``linked`` tells which file of the package is which file of the checkpoint, by link, and when
    that was last changed.
    """
    submodels: dict[str, Any] = {}
    sources: dict[str, str] = {}
    linked: dict[str, Any] = {}
    for part in plan.components:
        notes = staging.finished(part.name)
        assert notes is not None
        submodels |= notes["submodels"]
        sources |= notes["sources"]
        linked |= notes["linked"]
    return {
        "format": FORMAT,
        "tool": {"sdsetup": tool_version, **_versions()},
        "checkpoint": {"origin": plan.origin, "commit": plan.commit, "sha256": dict(sorted(sources.items()))},
        **({"adapters": [asdict(each) for each in plan.adapters]} if plan.adapters else {}),
        **({"embeddings": [asdict(each) for each in plan.embeddings]} if plan.embeddings else {}),
        "family": plan.family,
        "pipeline": checkpoint.index.get("_class_name"),
        "precision": plan.options.precision,
        "target": plan.options.target,
        "opset": plan.opset,
        "submodels": submodels,
        "linked": dict(sorted(linked.items())),
        "files": {name: vars(entry) for name, entry in sorted(staging.files().items())},
    }


def _versions() -> dict[str, str]:
    found = {}
    for name in _DISTRIBUTIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def parity_entry(report: ParityReport) -> dict[str, Any]:
    """Return the reproducible numbers of a report for the manifest."""
    document = report.document()
    return {
        "provider": report.provider,
        **({"reference": report.reference} if report.reference else {}),
        "submodels": {
            each["submodel"]: None
            if each["parity"] is None
            else {
                name: None if value is None else float(f"{value:.3g}")
                for name, value in each["parity"].items()
            }
            for each in document["submodels"]
        },
    }


def describe_submodel(
    submodel: Submodel, config: Config, model: ir.Model, options: Options, kept: Sequence[OverflowingNode]
) -> dict[str, Any]:
    """Describe one submodel: its tensors, precision and size, and what of it had to stay in float32."""

    def specs(values: Any) -> list[dict[str, Any]]:
        return [{**asdict(spec), "shape": list(spec.shape)} for spec in values]

    description = {
        "component": submodel.component,
        "precision": options.precision_of(submodel),
        "nodes": len(model.graph),
        "inputs": specs(submodel.kind.inputs(config)),
        "outputs": specs(submodel.kind.outputs(config)),
    }
    quantized = quantized_weights(model)
    if quantized:
        description["quantized"] = {
            "precision": options.precision_of(submodel),
            "block": BLOCK,
            "weights": quantized,
        }
    if kept:
        description[KEPT] = {
            "limit": LARGEST_FP16,
            "nodes": [
                {
                    "node": each.node,
                    "layer": each.layer,
                    "operator": each.operator,
                    # Multithreaded sums differ in their last digits; the manifest must be reproducible.
                    "largest": float(f"{each.largest:.3g}") if math.isfinite(each.largest) else None,
                    "reason": each.reason,
                }
                for each in kept
            ],
        }
    return description

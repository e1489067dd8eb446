"""Entries of a manifest: what a submodel is described as, and the numbers of a report."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from conversions.family import Submodel
from conversions.graph_kind import TensorSpec
from conversions.options import Options
from conversions.package.layout import FORMAT, FileRecord, Staging
from conversions.package.manifest import KEPT, describe_submodel, make_manifest, parity_entry
from conversions.passes.quantize_weights import quantize_weights
from conversions.verification.ep_assignment import Placement
from conversions.verification.fp16_overflow import LARGEST_FP16, OverflowingNode
from conversions.verification.parity import Parity, ParityReport, SubmodelReport
from conversions.weights.lora.transform import MergedAdapter
from tests.conversions.passes.test_quantize_weights import linear
from tests.conversions.test_graph_kind import kind

INPUT = TensorSpec(name="sample", dtype="float", shape=("batch", 4, "height"))
OUTPUT = TensorSpec(name="noise", dtype="float32", shape=("batch", "8*height"))
PART = Submodel(
    name="unet",
    component="denoiser",
    kind=kind(
        quantizable=True,
        inputs=lambda config: (replace(INPUT, name=config["name"]),),
        outputs=lambda config: (replace(OUTPUT, name=f"{config['name']}_out"),),
    ),
    role="denoiser",
)
CONFIG = {"name": "sample"}


def test_a_submodel_is_described_by_its_tensors_precision_and_size() -> None:
    found = describe_submodel(PART, CONFIG, linear(transB=1), Options(precision="fp32"), ())
    assert found == {
        "component": "denoiser",
        "precision": "fp32",
        "nodes": 1,
        "inputs": [{"name": "sample", "dtype": "float", "shape": ["batch", 4, "height"]}],
        "outputs": [{"name": "sample_out", "dtype": "float32", "shape": ["batch", "8*height"]}],
    }


def test_quantised_weights_are_listed() -> None:
    model = linear(transB=1)
    quantize_weights(model, "int4", ())
    found = describe_submodel(PART, CONFIG, model, Options(precision="int4"), ())
    assert (found["precision"], found["nodes"]) == ("int4", 2)
    assert found["quantized"] == {"precision": "int4", "block": 32, "weights": ["norm.linear.weight"]}
    assert KEPT not in found


def test_nodes_that_stay_in_float32_are_listed_with_three_digits() -> None:
    kept = [
        OverflowingNode(node="n1", layer="l1", operator="Add", largest=123456.789, reason="too large"),
        OverflowingNode(node="n2", layer="l2", operator="Mul", largest=math.inf, reason="not measured"),
    ]
    found = describe_submodel(PART, CONFIG, linear(transB=1), Options(), kept)
    assert KEPT == "kept_fp32"
    assert found[KEPT] == {
        "limit": LARGEST_FP16,
        "nodes": [
            {"node": "n1", "layer": "l1", "operator": "Add", "largest": 123000.0, "reason": "too large"},
            {"node": "n2", "layer": "l2", "operator": "Mul", "largest": None, "reason": "not measured"},
        ],
    }
    assert "quantized" not in found


def report(name: str, parity: Parity | None) -> SubmodelReport:
    return SubmodelReport(
        submodel=name,
        placement=Placement(provider="CPUExecutionProvider", nodes={"CPUExecutionProvider": 3}),
        finite=True,
        parity=parity,
        quantization_db=None,
        seconds=1.0,
        problems=(),
    )


@pytest.mark.parametrize("reference", ["pytorch", None])
def test_the_numbers_of_a_report_have_three_digits(reference: Any) -> None:
    close = Parity(psnr_db=71.23456, gate_db=40.0, max_abs_error=0.00123456, cosine=0.99999)
    same = replace(close, psnr_db=math.inf)
    made = ParityReport(
        provider="CPUExecutionProvider",
        device="CPU",
        problems=(),
        submodels=(report("a", close), report("b", same), report("c", None)),
        reference=reference,
    )
    numbers = {"psnr_db": 71.2, "gate_db": 40.0, "max_abs_error": 0.00123, "cosine": 1.0}
    assert parity_entry(made) == {
        "provider": "CPUExecutionProvider",
        **({"reference": "pytorch"} if reference else {}),
        "submodels": {"a": numbers, "b": {**numbers, "psnr_db": None}, "c": None},
    }


def staged(folder: Path, notes: dict[str, Any]) -> Staging:
    """A staging folder with a finished file of each component and what was noted of it."""
    staging = Staging(folder / "package", "the plan")
    staging.begin()
    for size, (component, noted) in enumerate(notes.items()):
        staging.finish(component, {f"{component}/w": FileRecord(size_bytes=size, sha256=component)}, noted)
    return staging


def test_a_manifest_joins_what_was_noted_of_each_component_in_a_fixed_order(tmp_path: Path) -> None:
    notes = {
        "vae": {
            "submodels": {"vae_decoder": {"nodes": 2}, "vae_encoder": {"nodes": 3}},
            "sources": {"vae/z": "2"},
            "linked": {"vae_decoder/w": "z"},
        },
        "unet": {"submodels": {"unet": {"nodes": 1}}, "sources": {"unet/a": "1"}, "linked": {"unet/w": "a"}},
    }
    plan: Any = SimpleNamespace(
        components=[SimpleNamespace(name=name) for name in notes],
        origin="acme/tiny",
        commit="c0ffee",
        family="stable-diffusion",
        opset=18,
        options=Options(precision="int8", target="cpu"),
        adapters=(),
        embeddings=(),
    )
    checkpoint: Any = SimpleNamespace(index={"_class_name": "StableDiffusionPipeline"})
    staging = staged(tmp_path, notes)
    found = make_manifest(plan, checkpoint, staging, "1.2.3")
    tool = found.pop("tool")
    assert next(iter(tool)) == "sdsetup"
    assert tool["sdsetup"] == "1.2.3"
    assert {"onnx", "onnx-ir", "numpy"} <= set(tool)
    assert all(version[0].isdigit() for version in tool.values())
    assert found == {
        "format": FORMAT,
        "checkpoint": {
            "origin": "acme/tiny",
            "commit": "c0ffee",
            "sha256": {"unet/a": "1", "vae/z": "2"},
        },
        "family": "stable-diffusion",
        "pipeline": "StableDiffusionPipeline",
        "precision": "int8",
        "target": "cpu",
        "opset": 18,
        "submodels": {"vae_decoder": {"nodes": 2}, "vae_encoder": {"nodes": 3}, "unet": {"nodes": 1}},
        "linked": {"unet/w": "a", "vae_decoder/w": "z"},
        "files": {
            "unet/w": {"size_bytes": 1, "sha256": "unet"},
            "vae/w": {"size_bytes": 0, "sha256": "vae"},
        },
    }
    for ordered in (found["linked"], found["files"], found["checkpoint"]["sha256"]):
        assert list(ordered) == sorted(ordered)
    adapter = MergedAdapter(name="style", weight=0.5, sha256="5")
    plan.adapters, plan.embeddings = (adapter,), (adapter,)
    found = make_manifest(plan, checkpoint, staging, "1.2.3")
    listed = [{"name": "style", "weight": 0.5, "sha256": "5"}]
    assert (found["adapters"], found["embeddings"]) == (listed, listed)

"""The reference without PyTorch: as good as PyTorch on right packages, and it finds the wrong ones."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from conversions import convert, open_checkpoint
from conversions.checkpoint.folder import Checkpoint
from conversions.errors import ConversionError
from conversions.events import ignore
from conversions.package.layout import open_package
from conversions.providers.devices import CPU
from conversions.verification.metrics import compare
from conversions.verification.parity import ParityReport, verify
from conversions.verification.reference import make_inputs
from conversions.verification.references import run_references
from sdsetup import demo

pytestmark = pytest.mark.skipif(
    sys.platform == "win32", reason="slow under Wine, where tests/sdsetup/demo/test_recorded.py evaluates too"
)


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return open_checkpoint(demo.checkpoint_path())


def test_a_right_package_passes_and_its_manifest_names_the_reference(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    made = convert(checkpoint, tmp_path / "package", target="cpu", reference="float32_graph")
    assert made.report is not None
    assert made.report.reference == "float32_graph"
    entry = open_package(made.package.folder).manifest["parity"]
    assert entry["reference"] == "float32_graph"
    assert all(each["psnr_db"] > 40 for each in entry["submodels"].values())


@pytest.mark.robustness  # half a minute
@pytest.mark.torch
def test_it_agrees_with_pytorch_quantised_weights_included(checkpoint: Checkpoint, tmp_path: Path) -> None:
    package = convert(
        checkpoint, tmp_path / "package", target="cpu", precision="int8", verify_on=None
    ).package
    submodels = {each.name: each for each in checkpoint.submodels if each.name in {"unet", "vae_decoder"}}
    inputs = {
        name: make_inputs(each.kind, checkpoint.config_of(each), each.kind.sizes)
        for name, each in submodels.items()
    }
    quantized = {name: package.quantized(name) for name in submodels}
    one, other = (
        run_references(submodels, checkpoint, inputs, quantized, ignore, kind=kind)
        for kind in ("pytorch", "float32_graph")
    )
    for name in submodels:
        for output, expected in one[name].outputs.items():
            assert compare(other[name].outputs[output], expected).psnr_db > 100, (name, output)
        unquantized = one[name].unquantized
        assert (unquantized is None) == (other[name].unquantized is None)
        for output, expected in (unquantized or {}).items():
            found = other[name].unquantized
            assert found is not None
            assert compare(found[output], expected).psnr_db > 100, (name, output)


def _swap(stored: dict[str, np.ndarray]) -> None:
    one, other = "decoder.mid_block.resnets.0.conv1.weight", "decoder.mid_block.resnets.1.conv1.weight"
    stored[one], stored[other] = stored[other], stored[one]


def _turn(stored: dict[str, np.ndarray]) -> None:
    name = "decoder.mid_block.attentions.0.to_q.weight"
    stored[name] = np.ascontiguousarray(stored[name].T)


def _shift(stored: dict[str, np.ndarray]) -> None:
    stored["decoder.conv_out.bias"] = stored["decoder.conv_out.bias"] + np.float16(0.5)


@pytest.mark.parametrize(
    "wrong", [_swap, *(pytest.param(each, marks=pytest.mark.robustness) for each in (_turn, _shift))]
)
def test_a_package_of_other_weights_is_found(
    wrong: Callable[[dict[str, np.ndarray]], None], checkpoint: Checkpoint, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(demo.checkpoint_path(), other)
    file = other / "vae" / "diffusion_pytorch_model.safetensors"
    stored = dict(safetensors.numpy.load_file(file))
    wrong(stored)
    safetensors.numpy.save_file(stored, file)
    package = convert(open_checkpoint(other), tmp_path / "package", target="cpu", verify_on=None).package

    def verified(against: Checkpoint) -> ParityReport:
        return verify(
            package, against, device=CPU, only={"vae_decoder"}, reference="float32_graph", listener=ignore
        )

    report = verified(checkpoint)
    assert not report.passed
    assert "vae_decoder: it agrees with the float32 evaluation of its graph to only" in report.all_problems[0]
    assert verify(
        package, open_checkpoint(other), device=CPU, reference="float32_graph", listener=ignore
    ).passed


def test_without_a_graph_it_is_told_and_nothing_is_compared(checkpoint: Checkpoint, tmp_path: Path) -> None:
    package = convert(checkpoint, tmp_path / "package", target="cpu", verify_on=None).package
    submodel = package.submodels[0]
    odd = {**checkpoint.components, submodel.component: _with_more_layers(checkpoint, submodel.component)}
    with pytest.raises(ConversionError) as caught:
        run_references(
            {submodel.name: submodel},
            replace(checkpoint, components=odd),
            {submodel.name: make_inputs(submodel.kind, checkpoint.config_of(submodel), submodel.kind.sizes)},
            {submodel.name: {}},
            ignore,
            kind="float32_graph",
        )
    assert caught.value.code == "verify.no_graph"


def _with_more_layers(checkpoint: Checkpoint, name: str) -> object:
    component = checkpoint.components[name]
    return replace(component, config={**component.config, "num_hidden_layers": 7})

"""PyTorch's recorded outputs of the demo: they are PyTorch's, and a machine that computes others is found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from conversions import open_checkpoint
from conversions.events import ignore
from conversions.verification.metrics import compare
from sdsetup import demo
from sdsetup.demo import recorded
from sdsetup.errors import SetupError


def test_every_submodel_of_the_demo_is_recorded_and_agrees_here() -> None:
    agreement = recorded.check_evaluation(ignore)
    assert set(agreement) == {each.name for each in open_checkpoint(demo.checkpoint_path()).submodels}


@pytest.mark.robustness  # changes with the demo alone
@pytest.mark.torch
def test_what_is_recorded_is_what_pytorch_gives() -> None:
    from tests.demo_training.record_outputs import computed

    stored = recorded.load()
    for submodel, (inputs, outputs) in computed().items():
        assert set(stored[submodel].inputs) == set(inputs)
        for name, array in outputs.items():
            assert compare(array, stored[submodel].outputs[name]).psnr_db > 110, (submodel, name)


def test_other_numbers_are_no_reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = dict(np.load(recorded.OUTPUTS))
    name = "unet/output/out_sample"
    arrays[name] = arrays[name] + np.float32(1e-3) * np.abs(arrays[name]).max()
    np.savez(tmp_path / "other.npz", **arrays)
    stored = recorded.load(tmp_path / "other.npz")
    monkeypatch.setattr(recorded, "load", lambda: stored)
    with pytest.raises(SetupError, match="its unet agrees to"):
        recorded.check_evaluation(ignore)

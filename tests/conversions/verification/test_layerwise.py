from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from conversions.checkpoint.folder import open_folder
from conversions.verification import layerwise
from conversions.verification.reference import ExpressionWeights, FolderWeights, make_inputs, run_reference
from conversions.verification.references import weights_of
from tests.checkpoints import VARIANTS, make_variant

pytestmark = pytest.mark.torch


def narrow(checkpoint: Path, folder: Path, dtype: str) -> Path:
    import torch
    from safetensors.torch import load_file, save_file

    for path in shutil.copytree(checkpoint, folder).rglob("*.safetensors"):
        stored = {name: each.to(getattr(torch, dtype)) for name, each in load_file(path).items()}
        save_file(stored, path)
    return folder


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize(
    ("variant", "small_bytes"),
    [
        ("", 0),
        ("stable-diffusion-3", 0),
        # The embedding of its timesteps is the smallest part that looks deeper than one level.
        ("z-image turbo", 2 << 20),
        *(
            pytest.param(each, 0, marks=pytest.mark.robustness)
            for each in ("flux schnell", "flux2-klein", "pixart sigma", "pixart alpha", "sana", "sana-sprint")
        ),
    ],
)
def test_weights_kept_as_they_are_stored_give_float32_s_numbers(
    dtype: str,
    variant: str,
    small_bytes: int,
    tiny_checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(layerwise, "_SMALL_BYTES", small_bytes)
    whole = make_variant(tmp_path / "whole", VARIANTS[variant]) if variant else tiny_checkpoint
    opened = open_folder(narrow(whole, tmp_path / "narrow", dtype))
    for submodel in (each for each in opened.submodels if each.kind.quantizable):
        config, kind = opened.config_of(submodel), submodel.kind
        component = opened.components[submodel.component]
        inputs = make_inputs(kind, config, kind.sizes)
        monkeypatch.setattr(layerwise, "_LARGE_BYTES", 6 << 30)
        small = weights_of(opened, component)
        monkeypatch.setattr(layerwise, "_LARGE_BYTES", 0)
        large = weights_of(opened, component)
        assert isinstance(small, FolderWeights)
        assert isinstance(large, ExpressionWeights)
        assert large.dtype == dtype
        expected = run_reference(kind, config, small, inputs)
        found = run_reference(kind, config, large, inputs)
        for name, numbers in expected.outputs.items():
            np.testing.assert_allclose(found.outputs[name], numbers, rtol=1e-5, atol=1e-5)


def test_a_layer_s_own_weights_are_back_after_it_ran() -> None:
    import torch

    from conversions.verification.layerwise import in_float32

    model = torch.nn.Sequential(torch.nn.Linear(64, 8), torch.nn.Linear(8, 3)).half()
    before = {name: each.clone() for name, each in model.state_dict().items()}
    with torch.no_grad(), in_float32(model, {"0.weight": "int4"}):
        rounded = model(torch.ones(2, 64))
    with torch.no_grad(), in_float32(model, {}):
        plain = model(torch.ones(2, 64))
    assert rounded.dtype == torch.float32
    assert not torch.equal(rounded, plain)
    for name, each in model.state_dict().items():
        assert each.dtype == torch.float16
        assert torch.equal(each, before[name])

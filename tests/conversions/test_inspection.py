"""What a checkpoint or a package is said to be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from conversions import inspect, open_checkpoint
from conversions.errors import ConversionError
from sdsetup import demo


def test_the_demo_is_described_from_its_small_files() -> None:
    found = inspect(demo.checkpoint_path())
    assert (found.what, found.family, found.width, found.height) == (
        "checkpoint",
        "Stable Diffusion 1.x",
        128,
        128,
    )
    assert (found.scheduler, found.prediction_type) == ("DDIMScheduler", "v_prediction")
    assert found.tasks == ("image-to-image", "inpainting", "text-to-image")
    assert [each.name for each in found.submodels] == ["text_encoder", "unet", "vae_encoder", "vae_decoder"]
    assert found.missing == ("safety_checker",)
    unet = found.submodels[1]
    assert (unet.class_name, unet.types) == ("UNet2DConditionModel", ("F16",))
    assert unet.parameters is not None
    assert unet.size_bytes == 2 * unet.parameters
    assert json.loads(json.dumps(found.document()))["family"] == found.family


@pytest.mark.torch
def test_a_package_is_described_as_what_it_was_made_of(tiny_checkpoint: Path, tiny_package: Path) -> None:
    checkpoint, package = inspect(open_checkpoint(tiny_checkpoint)), inspect(tiny_package)
    assert (package.what, checkpoint.what) == ("package", "checkpoint")
    same = ("family", "pipeline", "tasks", "width", "height", "scheduler", "prediction_type", "steps")
    assert {name: getattr(package, name) for name in same} == {
        name: getattr(checkpoint, name) for name in same
    }
    assert [each.name for each in package.submodels] == [each.name for each in checkpoint.submodels]
    assert {each.types for each in package.submodels} == {("fp16",)}


def test_what_is_neither_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(ConversionError) as caught:
        inspect(tmp_path)
    assert caught.value.code == "checkpoint.not_a_pipeline"

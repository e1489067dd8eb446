"""What a checkpoint or a package is said to be."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from conversions import inspect, open_checkpoint
from conversions.errors import ConversionError
from sdsetup import demo
from tests.demo_package import demo_package


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


def test_a_checkpoint_and_its_package_are_described_alike(tmp_path: Path) -> None:
    checkpoint = inspect(demo.checkpoint_path())
    made = demo_package(tmp_path / "package", precision="fp16", precisions={"unet": "int8"})
    package = inspect(made.folder)
    assert (checkpoint.what, package.what) == ("checkpoint", "package")
    sizes = {
        name: sum(each.size_bytes for each in made.weight_files(name).values())
        for name in made.submodel_names
    }
    assert package == replace(
        checkpoint,
        what="package",
        submodels=tuple(
            replace(
                each,
                parameters=None,
                types=("int8",) if each.name == "unet" else ("fp16",),
                size_bytes=sizes[each.name],
            )
            for each in checkpoint.submodels
        ),
    )
    assert (package.pipeline, package.steps, package.guidance_scale) == ("StableDiffusionPipeline", 30, 7.5)
    assert package.origin == "checkpoint"
    assert (package.adapters, package.embeddings) == ((), ())
    named = {each.name: (each.component, each.class_name, each.parameters) for each in checkpoint.submodels}
    assert named == {
        "text_encoder": ("text_encoder", "CLIPTextModel", 882_944),
        "unet": ("unet", "UNet2DConditionModel", 5_373_060),
        "vae_encoder": ("vae", "AutoencoderKL", 1_028_935),
        "vae_decoder": ("vae", "AutoencoderKL", 1_028_935),
    }


def copied(folder: Path) -> Path:
    return Path(shutil.copytree(demo.checkpoint_path(), folder))


def test_types_of_weights_are_told_the_most_frequent_first(tmp_path: Path) -> None:
    folder = copied(tmp_path / "demo")
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    tensors |= {name: value.astype(np.float32) for name, value in tensors.items() if value.ndim == 1}
    save_file(tensors, path)
    unet = inspect(folder).submodels[1]
    assert unet.types == ("F16", "F32")
    assert unet.size_bytes == sum(value.nbytes for value in tensors.values())
    save_file(
        {name: value.astype(np.float32) for name, value in tensors.items() if value.ndim == 4}
        | {name: value.astype(np.float16) for name, value in tensors.items() if value.ndim != 4},
        path,
    )
    assert inspect(folder).submodels[1].types == ("F32", "F16")


def test_pickles_are_not_opened_to_be_described(tmp_path: Path) -> None:
    folder = copied(tmp_path / "demo")
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    (folder / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"whatever")
    unet = inspect(folder).submodels[1]
    assert (unet.parameters, unet.types, unet.size_bytes) == (None, ("pickle",), 0)


def test_what_a_denoiser_predicts_is_noise_unless_the_scheduler_says_otherwise(tmp_path: Path) -> None:
    folder = copied(tmp_path / "demo")
    path = folder / "scheduler" / "scheduler_config.json"
    config = json.loads(path.read_text("utf-8"))
    for given, found in (("sample", "sample"), (None, "epsilon")):
        path.write_text(json.dumps({**config, "prediction_type": given}), "utf-8")
        assert inspect(folder).prediction_type == found
    path.unlink()
    assert (inspect(folder).prediction_type, inspect(folder).scheduler) == ("epsilon", "")


def test_what_was_merged_and_learned_is_told_of_a_package(tmp_path: Path) -> None:
    made = demo_package(tmp_path / "package")
    path = made.folder / "manifest.json"
    manifest = json.loads(path.read_text("utf-8"))
    manifest["adapters"] = [{"name": "a.safetensors", "weight": 0.5, "sha256": "1" * 64}]
    manifest["embeddings"] = [{"name": "b.safetensors", "token": "<b>", "vectors": 2, "sha256": "2" * 64}]
    path.write_text(json.dumps(manifest), "utf-8")
    found = inspect(made.folder)
    assert [(each.name, each.weight) for each in found.adapters] == [("a.safetensors", 0.5)]
    assert [(each.token, each.vectors) for each in found.embeddings] == [("<b>", 2)]


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

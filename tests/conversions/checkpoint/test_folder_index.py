"""What a model_index.json may say, what is where it says, and which folder to give instead."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from conversions.checkpoint.folder import Checkpoint, component_tensors, open_folder, stored_tensors
from conversions.checkpoint.weight_files import WeightFiles
from conversions.errors import ConversionError

INDEX: dict[str, Any] = {
    "_class_name": "StableDiffusionPipeline",
    "_diffusers_version": "0.42.1",
    "requires_safety_checker": True,
    "feature_extractor": [None, None],
    "safety_checker": [None, None],
    "scheduler": ["diffusers", "DDIMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}
STEMS = {"text_encoder": "model", "unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that looks like a checkpoint; its weights are one number each."""
    path = tmp_path / "models" / "tiny"
    for component, stem in STEMS.items():
        (path / component).mkdir(parents=True)
        (path / component / "config.json").write_text("{}", "utf-8")
        save_file({"weight": np.ones(1, np.float32)}, path / component / f"{stem}.safetensors")
    (path / "scheduler").mkdir()
    (path / "scheduler" / "scheduler_config.json").write_text('{"_class_name": "DDIMScheduler"}', "utf-8")
    return rewrite(path)


def rewrite(folder: Path, **changes: Any) -> Path:
    (folder / "model_index.json").write_text(json.dumps({**INDEX, **changes}), "utf-8")
    return folder


def refused(folder: Path, **options: Any) -> ConversionError:
    with pytest.raises(ConversionError) as caught:
        open_folder(folder, **options)
    assert caught.value.hint
    return caught.value


def test_a_folder_is_read_with_what_it_is_called(folder: Path) -> None:
    opened = open_folder(folder)
    assert isinstance(opened, Checkpoint)
    assert (opened.origin, opened.commit, opened.notices) == ("tiny", "", ())
    assert opened.index == INDEX
    assert set(opened.components) == {"text_encoder", "unet", "vae"}
    assert opened.scheduler == {"_class_name": "DDIMScheduler"}
    assert opened.tokenizers == ("tokenizer",)
    assert opened.family.name == "stable-diffusion"
    assert opened.configs.scheduler == opened.scheduler
    assert opened.configs.index == opened.index
    assert set(opened.configs.components) == set(opened.components)
    (unet,) = (each for each in opened.submodels if each.component == "unet")
    assert opened.config_of(unet) == opened.components["unet"].config
    named = open_folder(folder, origin="owner/name", commit="0" * 40)
    assert (named.origin, named.commit) == ("owner/name", "0" * 40)
    assert component_tensors(opened.storage, opened.components["unet"]).keys() == {"weight"}


def test_a_checkpoint_without_a_scheduler_is_read(folder: Path) -> None:
    (folder / "scheduler" / "scheduler_config.json").unlink()
    assert open_folder(folder).scheduler == {}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"_class_name": 3}, '_class_name = 3; it must be a class.'),
        ({"_class_name": ["x"]}, '_class_name = ["x"]; it must be a class.'),
        ({"unet": ["diffusers", 3]}, 'unet = ["diffusers", 3]; it must be texts or nulls.'),
        ({"anything": [{}]}, "anything = [{}]; it must be texts or nulls."),
        ({"unet": "diffusers"}, 'unet = "diffusers"; it must be a list of library and class.'),
        ({"unet": True}, "unet = true; it must be a list of library and class."),
        ({"unet": {"x": "y" * 100}}, f'unet = {{"x": "{"y" * 53}; it must be a list of library and class.'),
    ],
)  # fmt: skip
def test_an_entry_of_another_kind_is_named(folder: Path, changes: dict[str, Any], said: str) -> None:
    error = refused(rewrite(folder, **changes))
    assert error.code == "config.invalid"
    assert error.message == f"{folder}/model_index.json says {said}"


@pytest.mark.parametrize("entry", [None, 3, "x", {"a": 1}, False])
def test_entries_that_are_no_folders_may_be_anything(folder: Path, entry: object) -> None:
    assert open_folder(rewrite(folder, note=entry)).index["note"] == entry


@pytest.mark.parametrize("entry", [None, [], [None, None]])
def test_an_optional_part_may_be_absent_in_three_ways(folder: Path, entry: object) -> None:
    assert "safety_checker" not in open_folder(rewrite(folder, safety_checker=entry)).components
    named = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    error = refused(rewrite(folder, safety_checker=named))
    assert (error.code, error.details) == ("checkpoint.optional_missing", {"component": "safety-checker"})
    assert "safety_checker/config.json" in error.message
    assert "safety_checker" not in open_folder(folder, without={"safety_checker"}).components


def test_configurations_tell_families_of_one_pipeline_apart(folder: Path) -> None:
    (folder / "unet" / "config.json").write_text('{"use_linear_projection": true}', "utf-8")
    (folder / "text_encoder" / "config.json").write_text('{"hidden_act": "gelu"}', "utf-8")
    assert open_folder(folder).family.name == "stable-diffusion-2"


def test_a_part_that_is_needed_is_named_whether_listed_or_not(folder: Path) -> None:
    (folder / "vae" / "config.json").unlink()
    for entry in (INDEX["vae"], [None, None]):
        error = refused(rewrite(folder, vae=entry))
        assert error.code == "checkpoint.component_missing"
        assert "'vae'" in error.message


def test_a_pipeline_of_no_family_is_named_with_the_nearest(folder: Path) -> None:
    for name, shown in (
        ("StableDiffusionPipelin", "StableDiffusionPipelin"),
        (None, "pipeline without a name"),
    ):
        index = {**INDEX, "_class_name": name}
        if name is None:
            del index["_class_name"]
        (folder / "model_index.json").write_text(json.dumps(index), "utf-8")
        error = refused(folder)
        assert error.code == "family.unsupported"
        assert f"is a {shown}," in error.message


def test_where_to_look_instead_is_told(folder: Path, tmp_path: Path) -> None:
    error = refused(folder.parent)
    assert error.code == "checkpoint.not_a_pipeline"
    assert error.hint == "There is one in its folder tiny: give that folder."
    single = tmp_path / "single"
    (single / "below").mkdir(parents=True)
    (single / "below" / "x.safetensors").touch()
    assert refused(single).hint == "Give the folder that holds model_index.json."
    for name in ("a.safetensors", "b.ckpt", "c.safetensors", "d.ckpt", "e.ckpt", "f.txt"):
        (single / name).touch()
    assert refused(single).hint == (
        "It holds single files: give one of them (a.safetensors, b.ckpt, c.safetensors, d.ckpt)."
    )
    assert refused(tmp_path / "nothing").code == "checkpoint.missing"
    assert refused(single / "f.txt").code == "checkpoint.not_a_folder"


def test_a_tensor_in_two_files_is_refused(folder: Path) -> None:
    storage = open_folder(folder).storage
    save_file({"weight": np.ones(1, np.float32)}, folder / "unet" / "more.safetensors")
    files = ("unet/diffusion_pytorch_model.safetensors", "unet/more.safetensors")
    weights = WeightFiles(files=files, index=None, format="safetensors", variant="")
    with pytest.raises(ConversionError, match="The tensor weight is in two files") as caught:
        stored_tensors(storage, weights)
    assert caught.value.code == "checkpoint.corrupt"
    assert all(name in caught.value.message for name in files)
    pickled = WeightFiles(files=("unet/x.bin",), index=None, format="pickle", variant="")
    with pytest.raises(ConversionError, match=r"unet/x\.bin are a pickle") as caught:
        stored_tensors(storage, pickled)
    assert caught.value.code == "weights.pickle"


def test_transforms_follow_each_other(folder: Path) -> None:
    from dataclasses import replace

    opened = open_folder(folder)
    renamed = replace(
        opened.components["unet"],
        transforms=(
            lambda tensors: {f"a.{name}": each for name, each in tensors.items()},
            lambda tensors: {f"b.{name}": each for name, each in tensors.items()},
        ),
    )
    assert component_tensors(opened.storage, renamed).keys() == {"b.a.weight"}


def test_an_optional_part_without_weights_can_be_left_out(folder: Path) -> None:
    (folder / "safety_checker").mkdir()
    (folder / "safety_checker" / "config.json").write_text("{}", "utf-8")
    error = refused(rewrite(folder, safety_checker=["x", "StableDiffusionSafetyChecker"]))
    assert (error.code, error.details) == ("checkpoint.optional_missing", {"component": "safety-checker"})
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    assert refused(folder, without={"safety_checker"}).code != "checkpoint.optional_missing"

"""Which files of a repository a conversion downloads, without a network: the index is in the cache."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from sdsetup.errors import SetupError
from sdsetup.hub import cache
from sdsetup.hub.model_ref import HubModel, RemoteFile
from sdsetup.hub.plan import plan

COMMIT = "0123456789" * 4
INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "_diffusers_version": "0.42",
    "feature_extractor": ["transformers", "CLIPImageProcessor"],
    "image_processor": ["transformers", "CLIPImageProcessor"],
    "scheduler": ["diffusers", "PNDMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "tokenizer_2": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
    "image_encoder": [None, None],
    "requires_safety_checker": True,
    "layers": ["a", "b", "c"],
}
SETTINGS = [
    "scheduler/scheduler_config.json",
    "feature_extractor/preprocessor_config.json",
    "tokenizer/vocab.json",
    "tokenizer/merges.txt",
    "tokenizer_2/spiece.model",
    "text_encoder/config.json",
    "unet/config.json",
    "vae/config.json",
]
WEIGHTS = [
    "text_encoder/model.safetensors",
    "unet/diffusion_pytorch_model.safetensors",
    "vae/diffusion_pytorch_model.safetensors",
]
OTHERS = [
    "README.md",
    "unet/diffusion_pytorch_model.safetensors.index.fp16.json",
    "unet/diffusion_pytorch_model.fp16.safetensors",
    "unet/deeper/config.json",
    "unet/image.png",
    "image_encoder/config.json",
    "layers/config.json",
]


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))


def model_with(
    names: list[str],
    index: object = INDEX,
    *,
    sizes: dict[str, int | None] | None = None,
    online: bool = True,
) -> HubModel:
    text = index if isinstance(index, str) else json.dumps(index)
    described = dict.fromkeys(names, 10) | {"model_index.json": len(text)} | (sizes or {})
    files = tuple(
        RemoteFile(name=name, size_bytes=size, git_sha1=f"{place:040}")
        for place, (name, size) in enumerate(described.items())
    )
    model = HubModel(repo_id="acme/model", revision="main", commit=COMMIT, files=files, online=online)
    fill(model, "model_index.json", text.encode())
    return model


def fill(model: HubModel, name: str, content: bytes) -> None:
    file = model.file(name)
    assert file is not None
    pointer = cache.slot(model, file).pointer
    pointer.parent.mkdir(parents=True, exist_ok=True)
    pointer.write_bytes(content)


def refusal(model: HubModel, **options: Any) -> SetupError:
    with pytest.raises(SetupError) as caught:
        plan(model, **options)
    assert caught.value.hint
    return caught.value


def test_settings_and_one_set_of_weights_of_every_component_are_wanted() -> None:
    found = plan(model_with([*OTHERS, *SETTINGS, *WEIGHTS]))
    assert {file.name for file in found.files} == {"model_index.json", *SETTINGS, *WEIGHTS}
    assert found.files[0].name == "model_index.json"
    assert set(found.weights) == {"text_encoder", "unet", "vae"}
    assert found.pickles == ()
    assert found.local_dir is None
    half = plan(model_with([*OTHERS, *SETTINGS, *WEIGHTS]), variant="fp16")
    assert half.weights["unet"].variant == "fp16"


def test_what_is_left_out_is_not_wanted() -> None:
    found = plan(model_with([*SETTINGS, *WEIGHTS]), without={"vae"})
    assert {file.name.partition("/")[0] for file in found.files if file.name.startswith("vae")} == set()
    assert set(found.weights) == {"text_encoder", "unet"}
    stable_3 = {"_class_name": "StableDiffusion3Pipeline", "text_encoder_3": ["a", "B"], "unet": ["a", "B"]}
    names = ["text_encoder_3/model.safetensors", WEIGHTS[1]]
    assert set(plan(model_with(names, stable_3), without={"t5"}).weights) == {"unet"}


def test_what_is_there_already_is_not_downloaded(tmp_path: Path) -> None:
    model = model_with([*SETTINGS, *WEIGHTS], sizes={"vae/config.json": None})
    fill(model, WEIGHTS[0], bytes(10))
    fill(model, WEIGHTS[1], bytes(9))
    found = plan(model)
    assert found.cached == {"model_index.json", WEIGHTS[0]}
    index_bytes = found.files[0].size_bytes or 0
    assert found.total_bytes == index_bytes + 10 * (len(SETTINGS) - 1 + len(WEIGHTS))
    assert found.download_bytes == found.total_bytes - index_bytes - 10
    elsewhere = plan(model, local_dir=tmp_path / "folder")
    assert elsewhere.cached == set()
    assert elsewhere.local_dir == tmp_path / "folder"


def test_a_setting_of_32_mib_is_the_largest() -> None:
    sizes = {"unet/config.json": 32 * 2**20, "vae/config.json": 32 * 2**20 + 1}
    found = plan(model_with([*SETTINGS, *WEIGHTS], sizes=sizes))
    names = {file.name for file in found.files}
    assert "unet/config.json" in names
    assert "vae/config.json" not in names


def test_pickles_are_taken_where_that_was_said() -> None:
    pickle = "unet/diffusion_pytorch_model.bin"
    model = model_with([*SETTINGS, WEIGHTS[0], pickle, WEIGHTS[2]])
    error = refusal(model)
    assert error.code == "hub.pickle-only"
    assert pickle in error.message
    found = plan(model, allow_pickle=True)
    assert found.pickles == (pickle,)


def test_a_component_without_weights_is_named() -> None:
    error = refusal(model_with([*SETTINGS, *WEIGHTS[:2]]))
    assert error.code == "hub.no-weights"
    assert "acme/model: " in error.message
    assert "vae" in error.message
    error = refusal(model_with([*SETTINGS, *WEIGHTS[:2]], online=False))
    assert error.code == "hub.not-in-cache"
    assert "the weights of vae of acme/model at 01234567." in error.message


@pytest.mark.parametrize(
    ("names", "online", "code", "said", "step"),
    [
        (["README.md"], True, "hub.not-diffusers", "is no diffusers checkpoint", "acme/model"),
        (
            ["README.md"],
            False,
            "hub.not-in-cache",
            "lacks model_index.json of acme/model",
            "download acme/model",
        ),
        (["a.ckpt"], True, "hub.single-files", "single files: a.ckpt.", "acme/model/blob/main/a.ckpt"),
        (
            [f"{number}.safetensors" for number in range(8)],
            True,
            "hub.single-files",
            "4.safetensors, 5.safetensors and 2 more.",
            "acme/model/blob/main/0.safetensors",
        ),
        (
            [f"{number}.safetensors" for number in range(6)],
            True,
            "hub.single-files",
            "4.safetensors, 5.safetensors.",
            "acme/model/blob/main/0.safetensors",
        ),
    ],
)
def test_a_repository_without_an_index_is_named_for_what_it_is(
    names: list[str], online: bool, code: str, said: str, step: str
) -> None:
    model = model_with(names, online=online)
    without = tuple(file for file in model.files if file.name != "model_index.json")
    error = refusal(
        HubModel(repo_id="acme/model", revision="main", commit=COMMIT, files=without, online=online)
    )
    assert error.code == code
    assert said in error.message
    assert step in (error.hint or "")


def test_an_index_that_is_no_json_is_an_error_of_the_model() -> None:
    error = refusal(model_with(SETTINGS, "{"))
    assert error.code == "hub.not-diffusers"
    assert "model_index.json of acme/model cannot be read" in error.message

"""Opening a checkpoint: git-lfs pointers, absent optional parts, files from Windows' editors."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from conversions.checkpoint.folder import open_folder, stored_tensors
from conversions.errors import ConversionError
from sdsetup.error_hints import hint_for

pytestmark = pytest.mark.torch

UNET = "unet/diffusion_pytorch_model"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 3438354725\n"


@pytest.fixture
def checkpoint(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint"))


@pytest.mark.parametrize("suffix", ["safetensors", "bin", "fp16.safetensors"])
def test_a_clone_without_git_lfs_is_recognised_when_opened(checkpoint: Path, suffix: str) -> None:
    (checkpoint / f"{UNET}.safetensors").unlink()
    (checkpoint / f"{UNET}.{suffix}").write_bytes(POINTER)
    with pytest.raises(ConversionError) as caught:
        open_folder(checkpoint)
    assert caught.value.code == "checkpoint.lfs_pointer"
    assert f"{UNET}.{suffix}" in caught.value.message
    assert "3,438,354,725 bytes" in caught.value.message
    assert "git lfs pull" in caught.value.hint
    assert "OWNER/NAME" in caught.value.hint


def test_weights_that_were_pulled_are_used_beside_pointers(checkpoint: Path) -> None:
    (checkpoint / f"{UNET}.safetensors").rename(checkpoint / f"{UNET}.fp16.safetensors")
    (checkpoint / f"{UNET}.safetensors").write_bytes(POINTER)
    opened = open_folder(checkpoint)
    assert opened.components["unet"].weights.files == (f"{UNET}.fp16.safetensors",)


def test_a_pickle_does_not_stand_in_for_a_pointer(checkpoint: Path) -> None:
    (checkpoint / f"{UNET}.safetensors").rename(checkpoint / f"{UNET}.bin")
    (checkpoint / f"{UNET}.safetensors").write_bytes(POINTER)
    with pytest.raises(ConversionError) as caught:
        open_folder(checkpoint)
    assert caught.value.code == "checkpoint.lfs_pointer"


def test_a_pointer_that_comes_after_opening_is_recognised_too(checkpoint: Path) -> None:
    opened = open_folder(checkpoint)
    (checkpoint / f"{UNET}.safetensors").write_bytes(POINTER)
    with pytest.raises(ConversionError) as caught:
        stored_tensors(opened.storage, opened.components["unet"].weights)
    assert caught.value.code == "checkpoint.lfs_pointer"


@pytest.mark.parametrize("name", ["model_index.json", "unet/config.json"])
def test_a_small_file_that_is_a_pointer_is_recognised(checkpoint: Path, name: str) -> None:
    (checkpoint / name).write_bytes(POINTER)
    with pytest.raises(ConversionError) as caught:
        open_folder(checkpoint)
    assert caught.value.code == "checkpoint.lfs_pointer"
    assert name in caught.value.message


@pytest.mark.parametrize("removed", ["safety_checker", "safety_checker/model.safetensors"])
def test_a_safety_checker_that_is_named_but_absent_is_dropped_when_asked(
    checkpoint: Path, removed: str
) -> None:
    path = checkpoint / removed
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(ConversionError) as caught:
        open_folder(checkpoint)
    assert "safety_checker" in caught.value.message
    assert caught.value.code == "checkpoint.optional_missing"
    assert "--drop-safety-checker" in hint_for(caught.value)
    opened = open_folder(checkpoint, without={"safety_checker"})
    assert set(opened.components) == {"text_encoder", "unet", "vae"}


def test_a_needed_component_cannot_be_left_out(checkpoint: Path) -> None:
    assert "unet" in open_folder(checkpoint, without={"unet"}).components
    shutil.rmtree(checkpoint / "unet")
    with pytest.raises(ConversionError) as caught:
        open_folder(checkpoint, without={"unet"})
    assert caught.value.code == "checkpoint.component_missing"
    assert "--drop" not in caught.value.hint


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_files_that_windows_editors_saved_are_read(checkpoint: Path, encoding: str) -> None:
    before = open_folder(checkpoint)
    for name in ("model_index.json", "unet/config.json"):
        text = (checkpoint / name).read_text("utf-8")
        (checkpoint / name).write_text(text, encoding)
    after = open_folder(checkpoint)
    assert after.index == before.index
    assert after.components["unet"].config == before.components["unet"].config

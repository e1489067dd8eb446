"""Paths in the Hub's cache, on a real disk."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import constants

from sdsetup.errors import SetupError
from sdsetup.hub import cache
from sdsetup.hub.model_ref import HubModel, RemoteFile

COMMIT = "0123456789abcdef" * 2 + "01234567"
FILE = RemoteFile(name="unet/model.safetensors", size_bytes=3, sha256="e" * 64, git_sha1="a" * 40)
MODEL = HubModel(repo_id="acme/model", revision="main", commit=COMMIT, files=(FILE,))


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_SYMLINKS", False)
    return tmp_path / "hub" / "models--acme--model"


def write_partial(slot: cache.Slot, content: bytes) -> None:
    slot.partial.parent.mkdir(parents=True, exist_ok=True)
    slot.partial.write_bytes(content)


def test_places_are_those_of_the_hubs_library(root: Path) -> None:
    slot = cache.slot(MODEL, FILE)
    assert slot.pointer == root / "snapshots" / COMMIT / "unet" / "model.safetensors"
    assert slot.blob == root / "blobs" / ("e" * 64)
    assert slot.partial.parent == slot.blob.parent
    assert slot.partial.name == f"{slot.blob.name}.sdsetup.incomplete"
    assert slot.lock == root.parent / ".locks" / root.name / f"{'e' * 64}.lock"
    plain = cache.slot(MODEL, replace(FILE, sha256=None))
    assert plain.blob == root / "blobs" / ("a" * 40)


def test_places_in_a_folder_of_choice(tmp_path: Path) -> None:
    slot = cache.slot(MODEL, FILE, tmp_path)
    assert slot.pointer == slot.blob == tmp_path / "unet" / "model.safetensors"
    assert slot.partial == tmp_path / "unet" / f"model.safetensors.{'e' * 12}.partial"
    assert slot.lock == tmp_path / "unet" / f"model.safetensors.{'e' * 12}.lock"
    write_partial(slot, b"abc")
    slot.publish()
    assert slot.pointer.read_bytes() == b"abc"
    assert not slot.adopt_blob(FILE)


def test_a_file_is_there_when_its_size_is_right() -> None:
    slot = cache.slot(MODEL, FILE)
    assert not slot.is_filled(FILE)
    write_partial(slot, b"abc")
    slot.publish()
    assert not slot.partial.exists()
    assert slot.pointer.read_bytes() == b"abc"
    assert slot.is_filled(FILE)
    assert slot.is_filled(replace(FILE, size_bytes=None))
    assert not slot.is_filled(replace(FILE, size_bytes=4))
    assert cache.list_snapshot("acme/model", COMMIT) == (RemoteFile(name=FILE.name, size_bytes=3),)


def test_files_of_one_folder_lie_beside_each_other() -> None:
    for name, digest in (("unet/a", "c" * 64), ("unet/b", "d" * 64)):
        slot = cache.slot(MODEL, replace(FILE, name=name, sha256=digest))
        write_partial(slot, name.encode())
        slot.publish()
    root = cache.snapshot("acme/model", COMMIT)
    assert {path.name: path.read_text("utf-8") for path in (root / "unet").iterdir()} == {
        "a": "unet/a",
        "b": "unet/b",
    }


@pytest.mark.skipif(sys.platform == "win32", reason="links need a right there")
def test_another_commit_links_to_content_that_is_there() -> None:
    first = cache.slot(MODEL, FILE)
    write_partial(first, b"abc")
    first.publish()
    assert first.pointer.is_symlink()
    assert not first.pointer.readlink().is_absolute()
    second = cache.slot(replace(MODEL, commit="f" * 40), FILE)
    assert not second.adopt_blob(replace(FILE, size_bytes=4))
    assert not second.pointer.exists()
    assert second.adopt_blob(FILE)
    assert second.pointer.resolve() == first.blob.resolve()
    third = cache.slot(MODEL, replace(FILE, name="other", sha256="d" * 64))
    assert not third.adopt_blob(FILE)


def test_without_links_the_content_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_SYMLINKS", True)
    slot = cache.slot(MODEL, FILE)
    write_partial(slot, b"abc")
    slot.publish()
    assert not slot.pointer.is_symlink()
    assert slot.pointer.read_bytes() == b"abc"
    assert not slot.blob.exists()
    assert [path.name for path in slot.pointer.parent.iterdir()] == ["model.safetensors"]


def test_revisions_remember_their_commit(root: Path) -> None:
    branch = replace(MODEL, revision="refs/pr/3")
    assert cache.read_ref("acme/model", "refs/pr/3") is None
    cache.write_ref(branch)
    assert cache.read_ref("acme/model", "refs/pr/3") == COMMIT
    assert [path.name for path in (root / "refs" / "refs" / "pr").iterdir()] == ["3"]
    cache.write_ref(replace(branch, commit="f" * 40))
    assert cache.read_ref("acme/model", "refs/pr/3") == "f" * 40
    (root / "refs" / "main").write_text(f"{COMMIT}\n", "utf-8")
    assert cache.read_ref("acme/model", "main") == COMMIT
    for damaged in ("g" * 40, "f" * 39, "F" * 40):
        (root / "refs" / "main").write_text(damaged, "utf-8")
        assert cache.read_ref("acme/model", "main") is None


def test_a_commit_is_its_own_revision_where_it_was_downloaded(root: Path) -> None:
    assert cache.read_ref("acme/model", COMMIT) is None
    cache.write_ref(replace(MODEL, revision=COMMIT))
    assert not (root / "refs").exists()
    cache.snapshot("acme/model", COMMIT).mkdir(parents=True)
    assert cache.read_ref("acme/model", COMMIT) == COMMIT


def test_the_same_commit_is_not_written_again(root: Path) -> None:
    cache.write_ref(MODEL)
    before = (root / "refs" / "main").stat()
    cache.write_ref(MODEL)
    assert (root / "refs" / "main").stat().st_ino == before.st_ino


@pytest.mark.parametrize("name", ["../secret", "a/../../b", "/etc/passwd", "a//b", "./a", "a\\b", "C:a", "."])
def test_a_name_that_leads_out_is_refused(name: str) -> None:
    with pytest.raises(SetupError) as caught:
        cache.slot(MODEL, replace(FILE, name=name))
    assert caught.value.code == "hub.unsafe-name"
    assert repr(name) in caught.value.message

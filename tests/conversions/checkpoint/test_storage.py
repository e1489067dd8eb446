"""Where bytes come from: a folder, small files in memory, and both as one."""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

import pytest

from conversions.checkpoint.layered import Layered, Place, all_of
from conversions.checkpoint.memory import Memory
from conversions.checkpoint.storage import Folder, Storage
from conversions.errors import ConversionError

CONTENT = {"model_index.json": b"{}", "unet/weights.bin": bytes(range(200))}


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    path = tmp_path / "checkpoint"
    for name, content in CONTENT.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return Folder(path)


def storages(folder: Folder) -> list[Storage]:
    memory = Memory("made here", CONTENT)
    places = all_of(folder) | {"unet/weights.bin": Place(storage=memory, name="unet/weights.bin")}
    return [folder, memory, Layered("both", places)]


def test_every_storage_gives_names_sizes_and_bytes(folder: Folder) -> None:
    for storage in storages(folder):
        assert storage.names() == ["model_index.json", "unet/weights.bin"]
        assert storage.size_bytes("unet/weights.bin") == 200
        assert storage.read("unet/weights.bin") == CONTENT["unet/weights.bin"]
        reader = storage.open("unet/weights.bin")
        buffer = bytearray(5)
        reader.read_into(memoryview(buffer), 100)
        reader.close()
        assert bytes(buffer) == bytes(range(100, 105))


def test_a_folder_has_paths_and_memory_has_hashes(folder: Folder) -> None:
    in_folder, memory, layered = storages(folder)
    digest = hashlib.sha256(CONTENT["unet/weights.bin"]).hexdigest()
    assert in_folder.path_of("model_index.json") == folder.path / "model_index.json"
    assert in_folder.known_sha256("model_index.json") == ""
    assert memory.path_of("unet/weights.bin") is None
    assert memory.known_sha256("unet/weights.bin") == memory.version("unet/weights.bin") == digest
    assert layered.path_of("model_index.json") == folder.path / "model_index.json"
    assert layered.path_of("unet/weights.bin") is None
    assert layered.known_sha256("unet/weights.bin") == digest
    assert layered.version("model_index.json") == folder.version("model_index.json")
    assert [each.label for each in (in_folder, memory, layered)] == [str(folder.path), "made here", "both"]


def test_a_file_that_changes_has_another_version(folder: Folder) -> None:
    before = folder.version("model_index.json")
    assert folder.version("model_index.json") == before
    os.utime(folder.path / "model_index.json", ns=(1, 1))
    touched = folder.version("model_index.json")
    (folder.path / "model_index.json").write_bytes(b"{} ")
    os.utime(folder.path / "model_index.json", ns=(1, 1))
    assert len({before, touched, folder.version("model_index.json")}) == 3


def test_a_file_that_ends_early_is_said_to_be_cut_short(folder: Folder) -> None:
    reader = folder.open("unet/weights.bin")
    with pytest.raises(
        ConversionError, match=r"weights\.bin ends before byte 201: it is cut short"
    ) as caught:
        reader.read_into(memoryview(bytearray(101)), 100)
    reader.close()
    assert caught.value.code == "checkpoint.truncated"
    assert caught.value.hint


@pytest.mark.skipif(sys.platform == "win32", reason="links need a right there")
def test_small_files_are_the_checkpoints_own_or_of_the_hubs_cache(folder: Folder, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"token")
    (folder.path / "secret.json").symlink_to(tmp_path / "secret")
    with pytest.raises(ConversionError, match=r"secret\.json is a link to .*secret, outside") as caught:
        folder.read("secret.json")
    assert caught.value.code == "checkpoint.link_outside"
    (folder.path / "again.json").symlink_to(folder.path / "model_index.json")
    assert folder.read("again.json") == b"{}"
    blobs = tmp_path / "models--owner--name" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / "abc").write_bytes(b"cached")
    (folder.path / "config.json").symlink_to(blobs / "abc")
    assert folder.read("config.json") == b"cached"
    for other in (tmp_path / "models--owner--name" / "other", tmp_path / "datasets" / "blobs"):
        other.mkdir(parents=True)
        (other / "abc").write_bytes(b"no")
        (folder.path / f"{other.parent.name}.json").symlink_to(other / "abc")
        with pytest.raises(ConversionError, match="outside of the checkpoint"):
            folder.read(f"{other.parent.name}.json")


@pytest.mark.skipif(sys.platform == "win32", reason="links need a right there")
def test_a_folder_that_is_a_link_is_looked_into_and_refused_by_name(folder: Folder, tmp_path: Path) -> None:
    other = tmp_path / "other"
    (other / "deeper").mkdir(parents=True)
    (other / "config.json").write_bytes(b"{}")
    (other / "deeper" / "x.json").touch()
    (folder.path / "vae").symlink_to(other)
    (folder.path / "again").symlink_to(folder.path / "unet")
    (folder.path / "loop").symlink_to(folder.path)
    (folder.path / "itself").symlink_to("itself")
    assert folder.names() == [
        *("again/weights.bin", "loop/model_index.json", "model_index.json", "unet/weights.bin"),
        "vae/config.json",
    ]
    with pytest.raises(ConversionError, match=r"vae.config\.json is a link to .*other.*, outside"):
        folder.read("vae/config.json")


def test_a_folder_is_read_as_deep_as_checkpoints_are(folder: Folder) -> None:
    for depth in range(1, 6):
        inner = folder.path.joinpath(*"abcde"[:depth])
        inner.mkdir()
        (inner / "file").touch()
    assert [name for name in folder.names() if name[0] == "a"] == ["a/b/c/file", "a/b/file", "a/file"]


@pytest.mark.skipif(sys.platform == "win32" or not hasattr(os, "geteuid"), reason="rights of POSIX")
def test_what_cannot_be_looked_into_is_left_out(folder: Folder) -> None:
    if os.geteuid() == 0:
        pytest.skip("nothing is forbidden to root")
    (folder.path / "lost+found").mkdir(mode=0)
    assert folder.names() == ["model_index.json", "unet/weights.bin"]

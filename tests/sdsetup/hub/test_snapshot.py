"""A commit in the Hub's cache as a checkpoint: what its files are identified by."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from huggingface_hub import constants

from conversions.checkpoint.storage import Folder
from sdsetup.hub.model_ref import HubModel, RemoteFile
from sdsetup.hub.snapshot import Snapshot

SHA256, SHA1, COMMIT = "a" * 64, "b" * 40, "c" * 40


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    made = tmp_path / "models--acme--tiny" / "snapshots" / COMMIT
    made.mkdir(parents=True)
    return made


def snapshot(*files: RemoteFile) -> Snapshot:
    return Snapshot(HubModel(repo_id="acme/tiny", revision="main", commit=COMMIT, files=files, licence=None))


def test_files_are_those_of_the_commit_and_known_by_the_hub_s_hashes(folder: Path) -> None:
    (folder / "large").write_bytes(b"1")
    (folder / "small").write_bytes(b"2")
    made = snapshot(
        RemoteFile(name="large", size_bytes=1, sha256=SHA256, git_sha1=SHA1),
        RemoteFile(name="small", size_bytes=1, git_sha1=SHA1),
    )
    assert made.path == folder
    assert made.read("large") == b"1"
    assert (made.version("large"), made.known_sha256("large")) == (SHA256, SHA256)
    assert (made.version("small"), made.known_sha256("small")) == (SHA1, "")


@pytest.mark.skipif(sys.platform == "win32", reason="makes symbolic links")
def test_without_an_answer_of_the_hub_the_name_of_the_contents_counts(folder: Path) -> None:
    blobs = folder.parents[1] / "blobs"
    blobs.mkdir()
    for name in (SHA256, SHA1):
        (blobs / name).write_bytes(b"1")
        (folder / name[0]).symlink_to(Path("../../blobs") / name)
    made = snapshot(RemoteFile(name="a", size_bytes=None))
    assert (made.version("a"), made.known_sha256("a")) == (SHA256, SHA256)
    assert (made.version("b"), made.known_sha256("b")) == (SHA1, "")


def test_a_plain_file_of_which_nothing_is_known_is_told_by_itself(folder: Path) -> None:
    (folder / SHA256).write_bytes(b"1")
    made = snapshot()
    assert made.version(SHA256) == Folder(folder).version(SHA256)
    assert made.version(SHA256) != SHA256
    assert made.known_sha256(SHA256) == ""

"""Which parts of a remote file are asked for, kept and fetched ahead, in this process."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from conversions.events import Event, Listener, ignore
from sdsetup.errors import SetupError
from sdsetup.hub import remote_storage
from sdsetup.hub.model_ref import HubModel, RemoteFile
from sdsetup.hub.remote_storage import HubStorage
from tests.hub_server import HubServer, Repo
from tests.hub_server.here import asked_here

WEIGHTS = "unet/weights.safetensors"
CONTENT = bytes(index * 7 % 251 for index in range(5000))
HEAD, BLOCK = 100, 1000


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    with HubServer() as made, asked_here(made, tmp_path / "hub", monkeypatch):
        made.add(Repo(repo_id="acme/tiny", files={WEIGHTS: CONTENT, "config.json": b"{}"}))
        monkeypatch.setattr(remote_storage, "_HEAD_BYTES", HEAD)
        monkeypatch.setattr(remote_storage, "_BLOCK_BYTES", BLOCK)
        yield made


def remote(server: HubServer, name: str) -> RemoteFile:
    content = server.repos["acme/tiny"].commits[server.repos["acme/tiny"].head][name]
    sha256 = content.sha256 if name == WEIGHTS else None
    return RemoteFile(name=name, size_bytes=content.size, sha256=sha256, git_sha1=content.git_sha1)


@pytest.fixture
def files(server: HubServer) -> list[RemoteFile]:
    return [remote(server, WEIGHTS), remote(server, "config.json")]


@pytest.fixture
def storage(server: HubServer, files: list[RemoteFile]) -> Iterator[HubStorage]:
    with storage_of(server, files) as made:
        yield made


def storage_of(server: HubServer, files: list[RemoteFile], listener: Listener = ignore) -> HubStorage:
    commit = server.repos["acme/tiny"].head
    return HubStorage(
        HubModel(repo_id="acme/tiny", revision="main", commit=commit, files=()), files, listener
    )


def read(storage: HubStorage, start: int, count: int) -> bytes:
    buffer = bytearray(count)
    reader = storage.open(WEIGHTS)
    reader.read_into(memoryview(buffer), start)
    reader.close()
    return bytes(buffer)


def asked(server: HubServer) -> set[str]:
    """Return the ranges that were asked for."""
    return {each.headers.get("range", "") for each in server.requests if "/cdn/" in each.path}


def test_what_is_known_of_files_needs_no_request(
    server: HubServer, storage: HubStorage, files: list[RemoteFile]
) -> None:
    weights, config = files
    assert storage.label == "acme/tiny"
    assert storage.names() == ["config.json", WEIGHTS]
    assert (storage.size_bytes(WEIGHTS), storage.size_bytes("config.json")) == (5000, 2)
    assert (storage.version(WEIGHTS), storage.version("config.json")) == (weights.sha256, config.git_sha1)
    assert (storage.known_sha256(WEIGHTS), storage.known_sha256("config.json")) == (weights.sha256, "")
    assert storage.path_of(WEIGHTS) is None
    assert storage_of(server, [replace(weights, size_bytes=None)]).size_bytes(WEIGHTS) == 0
    assert not server.requests


def test_a_small_file_is_read_once_and_compared_with_its_hash(server: HubServer, storage: HubStorage) -> None:
    assert storage.read("config.json") == storage.read("config.json") == b"{}"
    assert len(server.paths("^GET .*config")) == 1
    assert storage.read(WEIGHTS) == CONTENT


@pytest.mark.parametrize(
    ("start", "count"), [(0, 5000), (95, 10), (99, 1), (100, 1), (1099, 2), (1100, 1000), (4999, 1), (7, 0)]
)
def test_any_part_is_put_together_of_blocks(storage: HubStorage, start: int, count: int) -> None:
    assert read(storage, start, count) == CONTENT[start : start + count]


def test_the_head_is_fetched_alone_and_what_follows_a_block_ahead(
    server: HubServer, storage: HubStorage
) -> None:
    read(storage, 0, HEAD)
    assert asked(server) == {"bytes=0-99"}
    read(storage, HEAD, 1)
    read(storage, 1100, 3900)
    assert asked(server) == {
        *("bytes=0-99", "bytes=100-1099", "bytes=1100-2099", "bytes=2100-3099"),
        *("bytes=3100-4099", "bytes=4100-4999"),
    }
    assert len([each for each in server.requests if "/cdn/" in each.path]) == 6


def test_no_more_is_fetched_ahead_and_kept_than_memory_is_meant_for(
    server: HubServer, storage: HubStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_storage, "_FETCHED_AHEAD", 1)
    monkeypatch.setattr(remote_storage, "_KEPT", 2)
    for start in (0, 100, 1100, 2100):
        read(storage, start, 1)
    storage.__exit__()
    assert asked(server) >= {"bytes=0-99", "bytes=100-1099", "bytes=1100-2099", "bytes=2100-3099"}
    assert "bytes=4100-4999" not in asked(server)
    assert [index for _, index in storage._blocks._known] == [4, 3]


def test_parts_that_arrive_whole_are_asked_for_once_and_nothing_is_said(
    server: HubServer, files: list[RemoteFile]
) -> None:
    heard: list[Event] = []
    with storage_of(server, files, heard.append) as storage:
        assert read(storage, 0, 5000) == CONTENT
    assert len(asked(server)) == len([each for each in server.requests if "/cdn/" in each.path])
    assert heard == []


def test_what_is_still_waiting_when_a_storage_is_left_is_never_asked_for(
    server: HubServer, files: list[RemoteFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_storage, "_BLOCK_BYTES", 10)
    monkeypatch.setattr(remote_storage, "_FETCHED_AHEAD", 400)
    monkeypatch.setattr(remote_storage, "_KEPT", 500)
    with storage_of(server, files) as storage:
        assert read(storage, 100, 10) == CONTENT[100:110]
    assert len(asked(server)) < 300


def test_bytes_beyond_a_file_are_no_content_of_it(storage: HubStorage) -> None:
    with pytest.raises(SetupError, match=f"{WEIGHTS} has content that does not match") as caught:
        read(storage, 4990, 20)
    assert caught.value.code == "hub.corrupt"
    assert "HF_ENDPOINT" in (caught.value.hint or "")


def test_a_storage_that_was_left_asks_for_nothing_any_more(server: HubServer, storage: HubStorage) -> None:
    with storage as entered:
        assert entered is storage
    with pytest.raises(RuntimeError):
        read(storage, 0, 1)
    assert not asked(server)

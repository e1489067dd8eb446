"""Downloads in this process: what counts as there, and what is not tried again."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from conversions.events import ignore
from sdsetup import hub
from sdsetup.errors import SetupError
from sdsetup.hub import cache, session
from sdsetup.hub.download import _fetch_one, _is_downloaded, _Ticker, fetch
from sdsetup.hub.model_ref import HubModel, RemoteFile
from sdsetup.hub.session import Retries
from sdsetup.hub.streams import Source
from tests.hub_server import Fault, HubServer, Repo, faults

FILES = {"a.json": b'{"a": 1}', "b.safetensors": bytes(range(256)) * 40}


@pytest.fixture
def server(hub_here: HubServer) -> HubServer:
    hub_here.add(Repo(repo_id="acme/tiny", files=FILES))
    return hub_here


def resolved() -> HubModel:
    found = hub.resolve("acme/tiny")
    assert isinstance(found, HubModel)
    return found


def file_of(model: HubModel, name: str) -> RemoteFile:
    found = model.file(name)
    assert found is not None
    return found


def test_a_file_that_came_meanwhile_counts_and_is_not_asked_for(server: HubServer) -> None:
    """As when another program has finished it while its lock was waited for."""
    model = resolved()
    file = file_of(model, "b.safetensors")
    assert fetch(model, [file]) == cache.snapshot("acme/tiny", model.commit)
    server.requests.clear()
    ticker = _Ticker(ignore)
    slot = cache.slot(model, file)
    stopped = threading.Event()
    _fetch_one(Source(model, ignore), file, slot, None, ticker, Retries(ignore, stopped), stopped)
    assert (ticker._done, ticker.received) == (len(FILES["b.safetensors"]), 0)
    assert not server.requests


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_a_folder_is_there_where_its_bytes_are(
    server: HubServer, tmp_path: Path, name: str
) -> None:
    model = resolved()
    folder = tmp_path / "chosen"
    file = file_of(model, name)
    assert not _is_downloaded(model, file, folder)
    folder.mkdir()
    (folder / name).write_bytes(FILES[name])
    assert _is_downloaded(model, file, folder)
    assert not _is_downloaded(model, file, None)
    (folder / name).write_bytes(FILES[name][::-1])
    assert not _is_downloaded(model, file, folder)
    assert not server.paths("/cdn/")


def test_files_are_not_tried_again_after_another_has_failed(
    server: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that waits to be tried again is told, although it would wait for a minute."""
    monkeypatch.setattr(session, "_FIRST_WAIT_SECONDS", 60.0)
    monkeypatch.setattr(session, "_LONGEST_BACKOFF_SECONDS", 60.0)
    waiting = faults.status(503)
    refused = faults.status(404, {"X-Error-Code": "EntryNotFound"})
    server.faults += [
        Fault(where="GET /cdn/acme/tiny/*", action=waiting, times=-1),
        Fault(where="HEAD /acme/tiny/resolve/*/a.json", action=refused, times=-1),
    ]
    model = resolved()
    over = threading.Event()
    errors: list[BaseException] = []

    def run() -> None:
        try:
            fetch(model, model.files)
        except SetupError as error:
            errors.append(error)
        over.set()

    threading.Thread(target=run, daemon=True).start()
    assert over.wait(30)
    assert [getattr(error, "code", "") for error in errors] == ["hub.no-file"]
    assert len(server.paths("^HEAD .*b.safetensors")) <= 1

"""Requests for a part of a file, over real connections: what is asked, sent along, refused."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants
from huggingface_hub.errors import HfHubHTTPError

from conversions.events import Event, Notice
from sdsetup.errors import SetupError
from sdsetup.hub import streams
from sdsetup.hub.model_ref import HubModel, RemoteFile
from sdsetup.hub.streams import AddressExpired, Source, StartOver
from tests.hub_server import Fault, HubServer, Repo, faults
from tests.hub_server.here import asked_here

CONTENT = bytes(range(256)) * 8192  # 2 MiB
TOKEN = {"Authorization": "Bearer hf_secret", "X-Other": "kept"}


class Server(ThreadingHTTPServer):
    """Answers with the content, from the position asked for, or as it is told."""

    status = 0
    answers_range = True
    says_range = ""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[dict[str, str]] = []

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients that go away are part of the tests."""

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append({name.lower(): value for name, value in self.headers.items()})
        if self.server.status:
            self.send_response(self.server.status)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        start, end = 0, len(CONTENT)
        wanted = self.headers.get("Range", "")
        if wanted and self.server.answers_range:
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            start, end = int(first), int(last) + 1 if last else len(CONTENT)
        self.send_response(206 if wanted and self.server.answers_range else 200)
        if wanted and self.server.answers_range:
            said = self.server.says_range or f"bytes {start}-{end - 1}/{len(CONTENT)}"
            self.send_header("Content-Range", said)
        self.send_header("Content-Length", str(end - start))
        self.end_headers()
        self.wfile.write(CONTENT[start:end])

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as made:
        thread = threading.Thread(target=made.serve_forever, args=(0.02,))
        thread.start()
        yield made
        made.shutdown()
        thread.join()


@contextmanager
def opened(server: Server, start: int = 0, end: int | None = None) -> Iterator[list[bytes]]:
    with streams._over_http(f"{server.address}/file", TOKEN, start, end) as pieces:
        yield list(pieces)


@pytest.mark.parametrize(
    ("start", "end", "asked"),
    [
        (0, None, None),
        (0, 10, "bytes=0-9"),
        (5, None, "bytes=5-"),
        (5, 6, "bytes=5-5"),
        (1, 2_000_000, "bytes=1-1999999"),
    ],
)
def test_a_part_is_asked_for_by_its_first_and_last_byte(
    server: Server, start: int, end: int | None, asked: str | None
) -> None:
    with opened(server, start, end) as pieces:
        assert b"".join(pieces) == CONTENT[start:end]
        assert max(map(len, pieces)) <= 2**20
    (headers,) = server.asked
    assert headers.get("range") == asked
    assert headers["accept-encoding"] == "identity"


def test_the_token_is_not_sent_to_others(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")
    with opened(server):
        pass
    monkeypatch.setattr(constants, "ENDPOINT", server.address)
    with opened(server):
        pass
    other, hub = server.asked
    assert "authorization" not in other
    assert hub["authorization"] == "Bearer hf_secret"
    assert (other["x-other"], hub["x-other"]) == ("kept", "kept")


@pytest.mark.parametrize(
    ("address", "whether"),
    [
        ("https://mirror.example/x", True),
        ("http://mirror.example/x", False),
        ("https://mirror.example:8443/x", False),
        ("https://mirror.example.evil/x", False),
        ("https://huggingface.co/x", True),
        ("https://hf.co/x", True),
        ("http://huggingface.co/x", False),
        ("http://hf.co/x", False),
        ("https://cdn-lfs.huggingface.co/x", False),
        ("https://huggingface.co.evil/x", False),
        ("https://evil/huggingface.co", False),
    ],
)
def test_only_the_hub_and_the_mirror_may_see_the_token(
    address: str, whether: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "https://mirror.example")
    assert streams._is_hub(address) is whether


def test_a_server_that_sends_the_beginning_instead_is_noticed(server: Server) -> None:
    server.answers_range = False
    with pytest.raises(StartOver), opened(server, 5):
        pytest.fail("it was read")
    with opened(server, 0, 10) as pieces:  # the caller counts
        assert b"".join(pieces) == CONTENT
    server.answers_range = True
    for said in ("bytes 50-99/200", "bytes */200", "items 5-9/20"):
        server.says_range = said
        with pytest.raises(StartOver), opened(server, 5):
            pytest.fail("it was read")


def test_a_range_beyond_the_end_begins_anew(server: Server) -> None:
    server.status = 416
    with pytest.raises(StartOver), opened(server, 5):
        pytest.fail("it was read")
    with pytest.raises(HfHubHTTPError), opened(server):
        pytest.fail("it was read")


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_an_address_that_another_host_refuses_has_expired(
    server: Server, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.status = status
    host = server.address.removeprefix("http://")
    with pytest.raises(AddressExpired, match=f"^{host} refuses its own address$"), opened(server):
        pytest.fail("it was read")
    monkeypatch.setattr(constants, "ENDPOINT", server.address)
    with pytest.raises(HfHubHTTPError) as caught, opened(server):
        pytest.fail("it was read")
    assert caught.value.response.status_code == status


@pytest.mark.parametrize("status", [400, 429, 500, 503])
def test_other_refusals_are_passed_on(server: Server, status: int) -> None:
    server.status = status
    with pytest.raises(HfHubHTTPError) as caught, opened(server, 5):
        pytest.fail("it was read")
    assert caught.value.response.status_code == status


WEIGHTS = "unet/weights.safetensors"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    with HubServer() as made, asked_here(made, tmp_path / "hub", monkeypatch):
        made.add(Repo(repo_id="acme/tiny", files={WEIGHTS: CONTENT, "config.json": b"{}"}))
        yield made


def remote(hub: HubServer, name: str, **changes: Any) -> RemoteFile:
    content = hub.repos["acme/tiny"].commits[hub.repos["acme/tiny"].head][name]
    sha256 = content.sha256 if name == WEIGHTS else None
    known = {"name": name, "size_bytes": content.size, "sha256": sha256, "git_sha1": content.git_sha1}
    return RemoteFile(**{**known, **changes})


def source(hub: HubServer, heard: list[Event] | None = None, **options: bool) -> Source:
    commit = hub.repos["acme/tiny"].head
    model = HubModel(repo_id="acme/tiny", revision="main", commit=commit, files=())
    return Source(model, ([] if heard is None else heard).append, **options)


def read(made: Source, file: RemoteFile, *part: int) -> bytes:
    with made.open(file, *part) as pieces:
        return b"".join(pieces)


def test_the_place_of_a_file_is_asked_for_once_and_again_after_an_error(hub: HubServer) -> None:
    made = source(hub)
    weights, config = remote(hub, WEIGHTS), remote(hub, "config.json")
    assert read(made, weights) == CONTENT
    assert read(made, weights, 1000, 1_500_000) == CONTENT[1000:1_500_000]
    assert len(hub.paths("^HEAD .*weights")) == 1
    assert read(made, config) == b"{}"
    assert len(hub.paths("^HEAD .*config")) == 1
    assert all(f"/resolve/{hub.repos['acme/tiny'].head}/" in path for path in hub.paths("^HEAD"))
    files = [each for each in hub.requests if "weights" in each.path]
    agents = {each.headers["user-agent"].partition("/")[0] for each in files}
    assert agents == {"sdsetup"}
    hub.faults.append(Fault(where="GET /cdn/*", action=faults.status(403)))
    with pytest.raises(AddressExpired):
        read(made, weights)
    assert read(made, weights) == CONTENT
    assert len(hub.paths("^HEAD .*weights")) == 2
    with pytest.raises(KeyError), made.open(weights):
        raise KeyError
    assert read(made, weights) == CONTENT
    assert len(hub.paths("^HEAD .*weights")) == 3


@pytest.mark.parametrize("changes", [{"size_bytes": 5}, {"sha256": "0" * 64}])
def test_a_file_that_is_not_the_one_of_the_list_is_refused(hub: HubServer, changes: dict[str, Any]) -> None:
    with pytest.raises(SetupError, match=f"{WEIGHTS} of acme/tiny differs") as caught:
        read(source(hub), remote(hub, WEIGHTS, **changes))
    assert caught.value.code == "hub.inconsistent"
    assert "HF_ENDPOINT" in (caught.value.hint or "")
    assert not hub.paths("^GET")


@pytest.mark.parametrize("header", ["X-Repo-Commit", "ETag"])
def test_an_answer_without_commit_or_hash_is_no_hub_s(hub: HubServer, header: str) -> None:
    names = {"ETag": ("ETag", "X-Linked-Etag")}.get(header, (header,))
    hub.faults.append(Fault(where="HEAD *", action=faults.without_headers(*names), times=-1))
    with pytest.raises(ValueError, match=f"no commit or hash for {WEIGHTS}"):
        read(source(hub), remote(hub, WEIGHTS))


def test_xet_is_given_up_once_and_for_all_files(hub: HubServer) -> None:
    heard: list[Event] = []
    made = source(hub, heard)
    for reason in ("it failed", "it failed again"):
        made.give_up_xet(reason)
    assert heard == [Notice(text="it failed; continuing over plain HTTP.")]
    never: list[Event] = []
    source(hub, never, allow_xet=False).give_up_xet("it failed")
    assert never == []

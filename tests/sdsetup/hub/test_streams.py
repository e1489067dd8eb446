"""Requests for a part of a file, over real connections: what is asked, sent along, refused."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from huggingface_hub import constants
from huggingface_hub.errors import HfHubHTTPError

from sdsetup.hub import streams
from sdsetup.hub.streams import AddressExpired, StartOver

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

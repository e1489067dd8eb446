"""One request, direct or by a proxy, over real connections."""

from __future__ import annotations

import threading
from base64 import b64encode
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any

import pytest

from sdsetup import __version__
from sdsetup.machine.readers import http


class Handler(BaseHTTPRequestHandler):
    """Notes what it is asked and answers with a redirect."""

    server: Any

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        sent = {name.lower(): value for name, value in self.headers.items()}
        self.server.asked.append((self.command, self.path, sent))
        self.send_response(302)
        self.send_header("Location", "/elsewhere")
        self.send_header("X-Two-Words", "Kept")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(b"body")

    def do_CONNECT(self) -> None:
        self.server.asked.append(
            (self.command, self.path, {name.lower(): value for name, value in self.headers.items()})
        )
        self.send_error(407)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[Any]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as made:
        seen: Any = made
        seen.asked = []
        thread = threading.Thread(target=made.serve_forever, args=(0.02,))
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def place(server: Any) -> str:
    return f"127.0.0.1:{server.server_address[1]}"


@pytest.mark.parametrize(
    ("address", "path"),
    [("", "/"), ("/", "/"), ("/a/b?c=d&e", "/a/b?c=d&e"), ("?c=d", "/?c=d"), ("/a#b", "/a")],
)
def test_a_request_is_sent_and_no_redirect_followed(server: Any, address: str, path: str) -> None:
    answer = http.request("GET", f"http://{place(server)}{address}", {"X-Mine": "1"})
    assert (answer.status, answer.body, answer.issuer) == (302, b"body", "")
    assert (answer.headers["location"], answer.headers["x-two-words"]) == ("/elsewhere", "Kept")
    ((method, asked, sent),) = server.asked
    assert (method, asked) == ("GET", path)
    assert (sent["x-mine"], sent["user-agent"]) == ("1", f"sdsetup/{__version__} doctor")
    assert "proxy-authorization" not in sent


def test_another_method_and_no_login_of_the_target(server: Any) -> None:
    assert http.request("HEAD", f"http://ann:pw@{place(server)}/x", {}).body == b""
    ((method, asked, sent),) = server.asked
    assert (method, asked) == ("HEAD", "/x")
    assert "proxy-authorization" not in sent


@pytest.mark.parametrize(("login", "plain"), [("", None), ("ann:p%40ss@", b"ann:p@ss"), ("ann@", b"ann:")])
def test_a_proxy_is_asked_for_the_whole_address(server: Any, login: str, plain: bytes | None) -> None:
    http.request("GET", "http://hub.example/a?b", {"X-Mine": "1"}, f"http://{login}{place(server)}")
    ((_, asked, sent),) = server.asked
    assert asked == "http://hub.example/a?b"
    assert sent["x-mine"] == "1"
    wanted = None if plain is None else f"Basic {b64encode(plain).decode()}"
    assert sent.get("proxy-authorization") == wanted


@pytest.mark.parametrize(("address", "tunnel"), [("hub.example", "443"), ("hub.example:8443", "8443")])
def test_a_tunnel_is_asked_for_with_the_login(server: Any, address: str, tunnel: str) -> None:
    with pytest.raises(OSError, match="407"):
        http.request("GET", f"https://{address}/a", {}, f"http://ann:pw@{place(server)}")
    ((method, asked, sent),) = server.asked
    assert (method, asked) == ("CONNECT", f"hub.example:{tunnel}")
    assert sent["proxy-authorization"] == f"Basic {b64encode(b'ann:pw').decode()}"


@pytest.mark.parametrize("address", ["ftp://x/y", "http:///y", "x", "", "https://"])
def test_other_addresses_are_refused_without_their_login(address: str) -> None:
    with pytest.raises(ValueError, match="is no http or https address"):
        http.request("GET", address, {})
    with pytest.raises(ValueError, match=r"^ftp://x/y is no"):
        http.request("GET", "ftp://ann:pw@x/y", {})


def test_the_issuer_is_an_organisation_or_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    class Socket:
        """A certificate as ``ssl`` gives it, in place of a real one of a public authority."""

        def __init__(self, *names: tuple[str, str]) -> None:
            self._names = names

        def getpeercert(self) -> dict[str, Any] | None:
            return {"issuer": tuple((pair,) for pair in self._names)} if self._names else None

    monkeypatch.setattr(http.ssl, "SSLSocket", Socket)

    def issuer(*names: tuple[str, str]) -> str:
        connection: Any = SimpleNamespace(sock=Socket(*names))
        return http._issuer(connection)

    assert issuer(("commonName", "R3"), ("organizationName", "Let's Encrypt")) == "Let's Encrypt"
    assert issuer(("commonName", "R3"), ("organizationName", "")) == "R3"
    assert issuer(("commonName", "R3")) == "R3"
    assert issuer(("countryName", "US")) == issuer() == ""

"""What the Hub answers, and what stands between it and this machine."""

from __future__ import annotations

import socket
import ssl
import sys
import time
from collections.abc import Iterator
from http.client import BadStatusLine
from pathlib import Path
from typing import Any

import pytest

from sdsetup.machine.facts import Hub, Questions
from sdsetup.machine.readers import hub
from sdsetup.machine.readers.http import Answer
from tests.hub_server import Account, Fault, HubServer, Repo, faults

TOKEN = "hf_SomebodysToken123"  # noqa: S105
OTHER = "hf_AnotherToken12345"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nobody is logged in and no proxy is set."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH", "HF_HUB_OFFLINE", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    for scheme in ("http", "https", "all"):
        monkeypatch.delenv(f"{scheme}_proxy", raising=False)
        monkeypatch.delenv(f"{scheme.upper()}_PROXY", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def server(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with HubServer() as made:
        made.add(Repo(repo_id="acme/tiny", files={"model_index.json": b"{}"}))
        made.accounts.append(Account(name="ann", token=TOKEN, role="write"))
        monkeypatch.setenv("HF_ENDPOINT", f"{made.endpoint}/")
        yield made


def read(model: str = "", *, offline: bool = False) -> Hub:
    return hub.read(Questions(output=Path("x"), model=model, offline=offline))


def test_a_hub_that_answers_is_online(server: HubServer) -> None:
    seen = read()
    assert (seen.endpoint, seen.default_endpoint, seen.reach, seen.detail) == (
        server.endpoint,
        False,
        "online",
        "",
    )
    assert (seen.token_state, seen.token_source, seen.issuer, seen.access) == ("none", "", "", "")
    assert 0 < seen.seconds < 30
    assert seen.clock_ahead_seconds is not None
    assert abs(seen.clock_ahead_seconds) < 30
    assert [each.path for each in server.requests] == ["/api/whoami-v2"]
    assert "authorization" not in server.requests[0].headers


@pytest.mark.parametrize(
    ("variable", "saved", "source", "hidden"),
    [
        ("", TOKEN, "file", ""),
        ("HF_TOKEN", "", "HF_TOKEN", ""),
        ("HUGGING_FACE_HUB_TOKEN", TOKEN, "HUGGING_FACE_HUB_TOKEN", ""),
        ("HF_TOKEN", OTHER, "HF_TOKEN", "file"),
    ],
)
def test_a_token_is_sent_and_its_kind_told(
    variable: str, saved: str, source: str, hidden: str, server: HubServer, home: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    file = home / "token"
    if saved:
        file.write_text(f"{saved}\n", "utf-8")
    if variable:
        monkeypatch.setenv(variable, f" {TOKEN} ")
    seen = read()
    places = {"file": str(file), "": ""}
    assert (seen.token_source, seen.hidden_token) == (places.get(source, source), places[hidden])
    assert (seen.token_state, seen.token_kind, seen.token_fault) == ("valid", "write", "")
    assert server.requests[0].headers["authorization"] == f"Bearer {TOKEN}"


def test_a_bad_token_is_told_and_a_malformed_one_not_sent(
    server: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", OTHER)
    assert read().token_state == "refused"  # noqa: S105
    monkeypatch.setenv("HF_TOKEN", f'"{TOKEN}"')
    server.requests.clear()
    seen = read()
    assert (seen.token_state, seen.token_fault) == ("malformed", "has quotes around it")
    assert "authorization" not in server.requests[0].headers


@pytest.mark.parametrize(
    ("status", "detail"),
    [(status, f"the hub answered {status} when asked about the token") for status in (500, 404, 201)],
)
def test_an_odd_answer_about_a_token_is_told(
    status: int, detail: str, server: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    server.faults.append(Fault(where="GET /api/whoami-v2", action=faults.status(status)))
    seen = read()
    assert seen.detail == detail
    assert (seen.reach, seen.token_state) == ("online", "unknown")


def test_a_token_without_a_role_is_valid(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    server.faults.append(
        Fault(where="GET /api/whoami-v2", action=faults.rewrite(lambda _: b'{"name": "ann"}'))
    )
    seen = read()
    assert (seen.token_state, seen.token_kind) == ("valid", "")


def answer(status: int, **headers: str) -> Answer:
    return Answer(status=status, headers={k.replace("_", "-"): v for k, v in headers.items()}, body=b"")


@pytest.mark.parametrize(
    ("given", "access", "host"),
    [
        (answer(200), "granted", "hub.example"),
        (answer(302, location="https://cdn.example/x"), "granted", "cdn.example"),
        (answer(307, location="/elsewhere"), "granted", "hub.example"),
        (answer(404, x_error_code="EntryNotFound"), "granted", "hub.example"),
        (answer(401, x_error_code="GatedRepo"), "gated", ""),
        (answer(403), "gated", ""),
        (answer(400, x_error_code="RepoNotFound"), "missing", ""),
        (answer(401), "missing", ""),
        (answer(404), "missing", ""),
    ],
)
def test_access_to_a_model_is_told_by_status_and_code(given: Answer, access: str, host: str) -> None:
    bare = Hub(endpoint="https://hub.example", model="a/b")
    seen = hub._with_access(bare, given)
    assert (seen.access, seen.data_host, seen.detail) == (access, host, "")


def test_another_status_says_nothing_of_access() -> None:
    seen = hub._with_access(Hub(endpoint="https://x", model="a/b"), answer(500))
    assert (seen.access, seen.detail) == ("", "the hub answered 500 when asked for a/b")
    assert hub._file("https://x", "a/b c") == "https://x/a/b%20c/resolve/main/model_index.json"


def test_a_model_is_asked_for_by_its_index(server: HubServer) -> None:
    assert read("acme/tiny").access == "granted"
    assert read("acme/none").access == "missing"
    assert server.paths("^HEAD /acme/tiny/resolve/main/model_index.json")


@pytest.mark.parametrize("value", ["1", "on", "Yes", "TRUE"])
def test_offline_asks_nothing(value: str, server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = read(offline=True)
    assert (seen.reach, seen.detail) == ("offline", "--offline")
    monkeypatch.setenv("HF_HUB_OFFLINE", value)
    seen = read()
    assert (seen.reach, seen.detail) == ("offline", "HF_HUB_OFFLINE is set")
    assert not server.requests
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    assert read().reach == "online"


def test_the_default_hub_is_known(home: Path) -> None:
    seen = read(offline=True)
    assert (seen.endpoint, seen.default_endpoint, seen.model) == ("https://huggingface.co", True, "")
    assert home.is_dir()


def test_a_hub_that_is_not_there_is_told(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    monkeypatch.setenv("HF_ENDPOINT", f"http://ann:pw@127.0.0.1:{port}")
    seen = read()
    assert (seen.endpoint, seen.reach) == (f"http://127.0.0.1:{port}", "error")
    assert "refused" in seen.detail
    assert seen.seconds < 30
    assert home.is_dir()


@pytest.mark.parametrize(
    ("variable", "value", "proxy"),
    [
        ("https_proxy", "http://ann:pw@proxy:1", "http://proxy:1"),
        ("HTTPS_PROXY", "http://proxy:1", "http://proxy:1"),
        ("ALL_PROXY", "http://proxy:1", "http://proxy:1"),
        ("HTTP_PROXY", "http://proxy:1", ""),
    ],
)
def test_the_proxy_of_the_address_is_named_with_its_variable(
    variable: str, value: str, proxy: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    seen = read(offline=True)
    named = variable.upper() if sys.platform == "win32" else variable  # Windows knows no case there
    assert (seen.proxy, seen.proxy_variable) == (proxy, named if proxy else "")
    monkeypatch.setenv("NO_PROXY", "huggingface.co")
    assert read(offline=True).proxy == ""
    assert home.is_dir()


BARE = Hub(endpoint="https://x")
PROXIED = Hub(endpoint="https://x", proxy="http://proxy")


@pytest.mark.parametrize(
    ("of", "error", "reach"),
    [
        (PROXIED, ssl.SSLCertVerificationError(), "tls"),
        (PROXIED, OSError(), "proxy"),
        (BARE, ValueError(), "error"),
        (BARE, BadStatusLine("x"), "error"),
        (BARE, ssl.SSLError(), "error"),
        (BARE, OSError(), "offline"),
        (Hub(endpoint="https://x", default_endpoint=False), OSError(), "error"),
    ],
)
def test_what_an_error_means_depends_on_the_way(of: Hub, error: Exception, reach: str) -> None:
    assert hub._reach(of, error) == reach


def test_errors_are_told_in_their_own_words() -> None:
    assert hub._said(OSError(5, "no such luck")) == "no such luck"
    assert hub._said(OSError("alone")) == "alone"
    assert hub._said(ValueError()) == "ValueError"
    assert hub._said(ValueError(f"http://ann:pw@x {TOKEN}")) == "http://x <hidden>"
    untrusted = ssl.SSLCertVerificationError("x")
    untrusted.verify_message = "self-signed"
    assert hub._said(untrusted) == "self-signed"


@pytest.mark.parametrize(
    ("status", "proxy", "reach", "detail"),
    [
        (407, "http://p", "proxy", "the proxy wants a user name and password"),
        (502, "socks5h://p", "proxy", "the SOCKS proxy does not get there"),
        (502, "http://p", "online", ""),
    ],
)
def test_a_proxy_that_answers_itself_is_told(status: int, proxy: str, reach: str, detail: str) -> None:
    seen = hub._with_identity(Hub(endpoint="https://x", proxy=proxy), answer(status), 2.5, has_token=False)
    assert (seen.reach, seen.detail, seen.seconds) == (reach, detail, 2.5)


@pytest.mark.parametrize(
    ("date", "ahead"), [("Thu, 01 Jan 1970 00:00:00 GMT", True), ("junk", False), ("", False)]
)
def test_the_clock_is_compared(date: str, ahead: bool) -> None:
    seen = hub._with_identity(BARE, answer(200, date=date), 1.0, has_token=False)
    if not ahead:
        assert seen.clock_ahead_seconds is None
        return
    assert seen.clock_ahead_seconds == pytest.approx(time.time(), abs=60)


def test_a_name_that_is_not_found_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def look_up(host: str, port: int) -> None:
        asked.append((host, port))
        if host == "slow.example":
            time.sleep(2)
        if host == "no.example":
            raise socket.gaierror(socket.EAI_NONAME, "not known")

    monkeypatch.setattr(hub.socket, "getaddrinfo", look_up)
    monkeypatch.setattr(hub, "_NAME_SECONDS", 1.0)
    hub._resolve("https://yes.example")
    hub._resolve("https://yes.example:8443")
    with pytest.raises(OSError, match="not known"):
        hub._resolve("https://no.example")
    monkeypatch.setattr(hub, "_NAME_SECONDS", 0.1)
    with pytest.raises(OSError, match=r"slow\.example was not found within 0\.1 s") as caught:
        hub._resolve("https://slow.example")
    assert caught.value.errno == socket.EAI_AGAIN
    assert asked[:2] == [("yes.example", 443), ("yes.example", 8443)]

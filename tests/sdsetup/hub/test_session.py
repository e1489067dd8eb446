"""Which errors are worth another attempt, and how long the wait before it is."""

from __future__ import annotations

import os
import sys
import threading
from typing import Any

import httpx2
import pytest
from huggingface_hub.errors import HfHubHTTPError

from conversions.events import Notice, ignore
from sdsetup.bootstrap import socks_relay
from sdsetup.errors import SetupError
from sdsetup.hub import session
from sdsetup.hub.session import Retries, describe, is_transient, stall_seconds, with_retries

REQUEST = httpx2.Request("GET", "https://hub.example/x")


def answered(status: int, **headers: str) -> HfHubHTTPError:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return HfHubHTTPError("no", response=httpx2.Response(status, headers=named, request=REQUEST))


class Clock(threading.Event):
    """An event that notes how long it is waited for, and comes back at once."""

    def __init__(self) -> None:
        super().__init__()
        self.waited: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        self.waited.append(timeout)
        return self.is_set()


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_servers_that_are_busy_are_asked_again(status: int) -> None:
    assert is_transient(answered(status))


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 416, 451, 501, 505])
def test_other_answers_are_final(status: int) -> None:
    assert not is_transient(answered(status))


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (httpx2.ReadTimeout("x"), True),
        (httpx2.ConnectTimeout("x"), True),
        (httpx2.ConnectError("refused"), True),
        (httpx2.ReadError("reset"), True),
        (httpx2.RemoteProtocolError("ended early"), True),
        (httpx2.ConnectError("[SSL: certificate_verify_failed]"), False),
        (httpx2.ReadError("[SSL: CERTIFICATE]"), True),
        (httpx2.UnsupportedProtocol("x"), False),
        (httpx2.TooManyRedirects("x"), False),
        (ValueError("x"), False),
        (OSError("x"), False),
    ],
)
def test_broken_connections_are_made_again_unless_the_certificate_is_wrong(
    error: Exception, again: bool
) -> None:
    assert is_transient(error) is again


def test_errors_are_described_in_a_few_words() -> None:
    assert describe(answered(429)) == "the server asks for fewer requests (429)"
    assert describe(answered(503)) == "the server answers 503"
    assert describe(httpx2.ReadTimeout("x")) == f"no answer for {stall_seconds():.0f} s"
    assert describe(httpx2.ReadError("x")) == "the connection broke"


def test_waits_double_up_to_eight_seconds_and_the_sixth_failure_is_the_last() -> None:
    clock, notices = Clock(), []
    retries = Retries(notices.append, clock)
    error = httpx2.ReadError("x")
    for _ in range(5):
        retries.wait_after(error)
    with pytest.raises(httpx2.ReadError) as caught:
        retries.wait_after(error)
    assert caught.value is error
    for waited, usual in zip(clock.waited, (0.25, 0.5, 1, 2, 4), strict=True):
        assert 0.75 * usual <= waited <= 1.25 * usual
    assert len({waited / usual for waited, usual in zip(clock.waited, (0.25, 0.5, 1, 2, 4), strict=True)}) > 1
    said = [waited for waited in clock.waited if waited >= 2]
    assert [event.text for event in notices] == [
        f"the connection broke; trying again in {waited:.0f} s." for waited in said
    ]
    assert all(isinstance(event, Notice) for event in notices)
    many = Retries(ignore, clock := Clock(), tries=12)
    for _ in range(11):
        many.wait_after(error)
    assert all(6 <= waited <= 10 for waited in clock.waited[5:])


def test_progress_begins_the_count_anew() -> None:
    clock = Clock()
    retries = Retries(ignore, clock, tries=2)
    for _ in range(5):
        retries.wait_after(httpx2.ReadError("x"))
        retries.progressed()
    assert all(waited <= 0.3125 for waited in clock.waited)
    retries.wait_after(httpx2.ReadError("x"))
    with pytest.raises(httpx2.ReadError):
        retries.wait_after(httpx2.ReadError("x"))


def test_final_errors_and_stopped_downloads_are_raised_at_once() -> None:
    clock = Clock()
    with pytest.raises(ValueError, match="final"):
        Retries(ignore, clock).wait_after(ValueError("final"))
    clock.set()
    with pytest.raises(httpx2.ReadError):
        Retries(ignore, clock).wait_after(httpx2.ReadError("x"))
    assert clock.waited == []


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({"Retry_After": "0"}, 0.0),
        ({"Retry_After": " 7 "}, 7.0),
        ({"Retry_After": "120"}, 120.0),
        ({"RateLimit": '"api";r=0;t=55', "RateLimit_Policy": '"fixed window";"api";q=500;w=300'}, 55.0),
    ],
)
def test_a_wait_that_the_server_asks_for_is_kept(headers: dict[str, str], wait: float) -> None:
    clock, notices = Clock(), []
    Retries(notices.append, clock).wait_after(answered(429, **headers))
    assert clock.waited == [wait]
    assert len(notices) == (1 if wait >= 2 else 0)


@pytest.mark.parametrize(
    "headers",
    [
        {"Retry_After": "121"},
        {"RateLimit": '"api";r=0;t=299', "RateLimit_Policy": '"fixed window";"api";q=500;w=300'},
    ],
)
def test_a_wait_of_minutes_is_left_to_the_person(headers: dict[str, str]) -> None:
    clock = Clock()
    with pytest.raises(HfHubHTTPError):
        Retries(ignore, clock).wait_after(answered(429, **headers))
    assert clock.waited == []


@pytest.mark.parametrize(
    "headers",
    [
        {"Retry_After": "Wed, 21 Oct 2026 07:28:00 GMT"},
        {"RateLimit": '"api";r=3;t=299', "RateLimit_Policy": '"fixed window";"api";q=500;w=300'},
        {},
    ],
)
def test_without_a_number_the_usual_wait_is_taken(headers: dict[str, str]) -> None:
    clock = Clock()
    Retries(ignore, clock).wait_after(answered(503, **headers))
    (waited,) = clock.waited
    assert 0.1875 <= waited <= 0.3125


def test_a_question_is_asked_four_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "_FIRST_WAIT_SECONDS", 0.0)
    asked: list[int] = []

    def ask() -> Any:
        asked.append(1)
        raise httpx2.ReadError("x")

    with pytest.raises(httpx2.ReadError):
        with_retries(ask, ignore)
    assert len(asked) == 4
    assert with_retries(lambda: "answer", ignore) == "answer"


@pytest.fixture
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    return monkeypatch


@pytest.mark.skipif(sys.platform == "win32", reason="variables of one name in two cases are one there")
def test_proxies_are_written_as_the_client_knows_them(no_proxies: pytest.MonkeyPatch) -> None:
    given = {
        "HTTPS_PROXY": "socks://127.0.0.1:9",
        "http_proxy": "HTTP://127.0.0.1:9",
        "NO_PROXY": "socks://127.0.0.1,localhost",
        "no_proxy": "socks://127.0.0.1,localhost",
        "ALL_PROXY": "127.0.0.1:9",
        "OTHER": "socks://127.0.0.1:9",
    }
    for name, address in given.items():
        no_proxies.setenv(name, address)
    session._make_proxies_usable()
    assert os.environ["HTTPS_PROXY"] == socks_relay.canonical("socks://127.0.0.1:9") != given["HTTPS_PROXY"]
    assert {name: os.environ[name] for name in ("NO_PROXY", "no_proxy", "ALL_PROXY", "OTHER")} == {
        name: given[name] for name in ("NO_PROXY", "no_proxy", "ALL_PROXY", "OTHER")
    }


def test_a_socks_4_proxy_is_reached_through_a_relay(no_proxies: pytest.MonkeyPatch) -> None:
    no_proxies.setenv("HTTPS_PROXY", "socks4://127.0.0.1:9")
    session._make_proxies_usable()
    assert os.environ["HTTPS_PROXY"].startswith("http://sdsetup:")
    assert not os.environ["HTTPS_PROXY"].endswith("127.0.0.1:9")
    session._relays.close()


@pytest.mark.skipif(sys.platform == "win32", reason="variables of one name in two cases are one there")
@pytest.mark.parametrize(
    ("error", "said", "hint"),
    [
        (ImportError("socksio"), "a package for it is missing: socksio", "python -m sdsetup install"),
        (ValueError("http://user:secret@"), "these are set: HTTPS_PROXY, https_proxy.", "HOST:PORT"),
    ],
)
def test_a_proxy_that_cannot_be_used_is_one_message(
    no_proxies: pytest.MonkeyPatch, error: Exception, said: str, hint: str
) -> None:
    def fail() -> Any:
        raise error

    no_proxies.setattr(session, "default_client_factory", fail)
    for name in ("HTTPS_PROXY", "https_proxy"):
        no_proxies.setenv(name, "http://127.0.0.1:9")
    with pytest.raises(SetupError) as caught:
        session._make_proxies_usable()
    assert caught.value.code == "hub.proxy"
    assert said in caught.value.message
    assert hint in caught.value.hint
    assert "secret" not in caught.value.message


def test_calls_without_a_limit_get_one() -> None:
    request = httpx2.Request("GET", "https://hub.example/x")
    session._limit_waiting(request)
    assert request.extensions["timeout"] == dict.fromkeys(
        ("connect", "read", "write", "pool"), stall_seconds()
    )
    kept = httpx2.Request(
        "GET", "https://hub.example/x", extensions={"timeout": {"connect": 3.0, "read": None}}
    )
    session._limit_waiting(kept)
    assert kept.extensions["timeout"] == {
        "connect": 3.0,
        **dict.fromkeys(("read", "write", "pool"), stall_seconds()),
    }
    with session._client() as client:
        assert session._limit_waiting in client.event_hooks["request"]


def test_a_wait_ends_with_the_error_when_another_file_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "_FIRST_WAIT_SECONDS", 60.0)
    monkeypatch.setattr(session, "_LONGEST_BACKOFF_SECONDS", 60.0)
    stopped = threading.Event()
    error = httpx2.ReadTimeout("slow")
    threading.Timer(0.05, stopped.set).start()
    with pytest.raises(httpx2.ReadTimeout) as caught:
        session.Retries(lambda _: None, stopped).wait_after(error)
    assert caught.value is error

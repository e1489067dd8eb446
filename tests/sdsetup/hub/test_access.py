"""Every error of the Hub's client becomes one message with a step, whatever raised it."""

from __future__ import annotations

import errno
from pathlib import Path

import httpx2
import pytest
from huggingface_hub import constants
from huggingface_hub.errors import (
    DisabledRepoError,
    GatedRepoError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
)

from sdsetup.errors import SetupError
from sdsetup.hub.access import translate_errors

URL = "http://cdn.example/acme/model/resolve/main/unet/config.json"


@pytest.fixture(autouse=True)
def _nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "HF_TOKEN",
        "HUGGING_FACE_HUB_TOKEN",
        "HF_OIDC_RESOURCE",
        "HF_ENDPOINT",
        "HF_HUB_CACHE",
        "HF_HOME",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(constants, "ENDPOINT", "http://hub.example")


def answer(status: int, **headers: str) -> httpx2.Response:
    return httpx2.Response(status, headers=headers, request=httpx2.Request("GET", URL))


def translated(error: Exception) -> SetupError:
    with pytest.raises(SetupError) as caught, translate_errors("acme/model", "v1"):
        raise error
    assert caught.value.hint
    return caught.value


@pytest.mark.parametrize(
    ("error", "code", "said", "step"),
    [
        (OfflineModeIsEnabled("offline"), "hub.offline", "HF_HUB_OFFLINE is set", "Unset HF_HUB_OFFLINE"),
        (httpx2.ProxyError("407"), "hub.proxy", "of this network refused: 407.", "NO_PROXY"),
        (
            httpx2.ConnectError("[SSL: certificate_verify_failed]"),
            "hub.certificate",
            "is not trusted",
            "SSL_CERT",
        ),
        (httpx2.TooManyRedirects("20"), "hub.strange-answer", "in a loop", "HF_ENDPOINT"),
        (httpx2.ReadTimeout("read"), "hub.unreachable", "no response for ", "network, then run"),
        (httpx2.ConnectError("refused"), "hub.unreachable", "reached: refused.", "network, then run"),
        (httpx2.ConnectError("[Errno -2] No name"), "hub.unreachable", "reached: No name.", "network, then"),
        (httpx2.ConnectError(""), "hub.unreachable", "reached: ConnectError.", "network, then run"),
        (httpx2.LocalProtocolError("header"), "hub.bad-token", "that was sent has letters", "sdsetup login"),
        (ImportError("no socksio"), "hub.proxy", "that is missing: no socksio.", "sdsetup install"),
        (KeyError("sha"), "hub.strange-answer", "http://hub.example sent a response", "log-in page"),
        (ValueError("x" * 300), "hub.strange-answer", f"the Hub: {'x' * 200}.", "log-in page"),
        (httpx2.InvalidURL("port"), "hub.strange-answer", "the Hub: port.", "log-in page"),
        (OSError(errno.ENOSPC, "No space"), "disk.full", "", "Free some space and run the same command"),
        (
            OSError(errno.EACCES, "no", "/data"),
            "hub.cache-not-writable",
            "written at /data.",
            "Set HF_HOME",
        ),
        (OSError(errno.EROFS, "no"), "hub.cache-not-writable", "cannot be written.", "use --local-dir"),
        (OSError(errno.EMFILE, "no"), "os.too_many_files", "", "HF_HOME decides where downloads go"),
        (SetupError("own.code", "Own.", "Step."), "own.code", "Own.", "Step."),
    ],
)
def test_what_the_network_and_the_disk_raise(error: Exception, code: str, said: str, step: str) -> None:
    found = translated(error)
    assert found.code == code
    assert said in found.message
    assert step in (found.hint or "")


def test_a_cache_that_is_gone_is_told_with_the_variable_that_names_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", "/gone/hub")
    for place in ("/gone", "/gone/hub", "/gone/hub/.locks/models--acme--tiny"):
        found = translated(FileNotFoundError(errno.ENOENT, "no", place))
        assert found.code == "hub.cache-gone"
        assert f"{Path('/gone/hub')}, is not there" in found.message
        assert "Set HF_HUB_CACHE to a folder of yours, or unset it" in (found.hint or "")
    other = translated(FileNotFoundError(errno.ENOENT, "no", "/elsewhere"))
    assert other.code == "os.gone"
    assert "HF_HUB_CACHE decides where downloads go" in (other.hint or "")


@pytest.mark.parametrize(
    ("kind", "status", "server", "code", "said", "step"),
    [
        (GatedRepoError, 403, "", "hub.gated", "only after accepting its terms", "then run: sdsetup login"),
        (
            DisabledRepoError,
            403,
            "",
            "hub.disabled",
            "has disabled acme/model",
            "http://hub.example/acme/model",
        ),
        (RemoteEntryNotFoundError, 404, "", "hub.no-file", "not there: unet/config.json.", "/tree/v1"),
        (RepositoryNotFoundError, 403, "", "hub.private", "that was sent may not read it", "sdsetup login"),
        (
            HfHubHTTPError,
            401,
            "",
            "hub.unauthorised",
            "the token that was sent: it is wrong",
            "sdsetup login",
        ),
        (HfHubHTTPError, 403, " Not now. ", "hub.forbidden", "to acme/model: Not now.", "sdsetup login"),
        (HfHubHTTPError, 403, None, "hub.forbidden", "access to acme/model.", "see what it asks for"),
        (HfHubHTTPError, 429, "", "hub.rate-limited", "to wait 7 s.", "After sdsetup login the limit"),
        (
            HfHubHTTPError,
            500,
            "",
            "hub.server",
            "cdn.example keeps responding with status 500",
            "status.hugg",
        ),
        (
            HfHubHTTPError,
            499,
            "",
            "hub.strange-answer",
            "cdn.example answered 499 about acme/model",
            "/acme/model",
        ),
    ],
)
def test_what_the_hub_answers(
    kind: type[HfHubHTTPError], status: int, server: str | None, code: str, said: str, step: str
) -> None:
    headers = {"Retry-After": "7"} if status == 429 else {}
    found = translated(kind("refused", response=answer(status, **headers), server_message=server))
    assert found.code == code
    assert said in found.message
    assert step in (found.hint or "")


def test_a_wait_that_is_no_number_is_not_said() -> None:
    for headers in ({}, {"Retry-After": "Wed, 21 Oct"}):
        found = translated(HfHubHTTPError("refused", response=answer(429, **headers)))
        assert found.message == "The Hub asks for fewer requests."


@pytest.mark.parametrize(
    ("said", "message", "step"),
    [
        (
            "Your request is awaiting a review",
            "Your request for acme/model waits",
            "Then run the same command",
        ),
        ("It is pending", "Your request for acme/model waits", "They write when they decide"),
        ("has been rejected", "have refused this account", "/discussions"),
        ("use a fine-grained token", "The token in HF_TOKEN may not read gated", "public gated repositories"),
        ("", "the account of the token in HF_TOKEN has not", "with that account"),
    ],
)
def test_a_gate_says_what_the_account_lacks(
    said: str, message: str, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_" + "a" * 34)
    found = translated(GatedRepoError("gated", response=answer(403), server_message=said))
    assert found.code == "hub.gated"
    assert message in found.message
    assert step in (found.hint or "")


def test_a_token_that_is_sent_is_named_by_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_" + "a" * 34)
    refused = translated(HfHubHTTPError("no", response=answer(401)))
    assert "does not accept the token in HF_TOKEN" in refused.message
    assert "Correct or unset HF_TOKEN" in (refused.hint or "")
    forbidden = translated(HfHubHTTPError("no", response=answer(403)))
    assert "Check what the token in HF_TOKEN may do" in (forbidden.hint or "")
    limited = translated(HfHubHTTPError("no", response=answer(429)))
    assert limited.hint == "Wait, then run the same command: it continues."
    monkeypatch.setenv("HF_TOKEN", '"hf_quoted"')
    quoted = translated(HfHubHTTPError("no", response=answer(401)))
    assert quoted.code == "hub.bad-token"
    assert "Set HF_TOKEN to the token alone" in (quoted.hint or "")
    assert "hf_quoted" not in quoted.message


def test_settings_of_the_network_are_named_where_it_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://hub.example")
    error = httpx2.ConnectError("refused")
    assert "the network, HF_ENDPOINT, then" in (translated(error).hint or "")
    monkeypatch.setenv("http_proxy", "http://user:secret@proxy.example:3128")
    hint = translated(error).hint or ""
    assert "the network, the proxy proxy.example (HTTP_PROXY) and HF_ENDPOINT, then" in hint
    assert "secret" not in hint


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/acme/model/resolve/refs%2Fpr%2F1/a.json", "not there: a.json."),
        ("/acme/model/resolve/main/a/resolve/b.json", "not there: a/resolve/b.json."),
        ("/api/models/acme/model", "not there: unknown."),
    ],
)
def test_the_file_that_is_not_there_is_named_by_its_address(path: str, said: str) -> None:
    response = httpx2.Response(404, request=httpx2.Request("GET", f"http://hub.example{path}"))
    assert said in translated(RemoteEntryNotFoundError("no", response=response)).message


def test_a_proxy_for_all_schemes_is_named_too(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ALL_PROXY", "socks5h://person:secret@proxy.example:1080")
    error = translated(httpx2.ConnectError("refused"))
    assert "the network, the proxy proxy.example (ALL_PROXY)" in (error.hint or "")
    assert "secret" not in f"{error.message} {error.hint}"

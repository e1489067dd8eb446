"""What the model hub answers from here: three small requests at most, no data, no token kept.

huggingface_hub does the real work elsewhere; this must run without it and tell apart what it lumps together.
"""

from __future__ import annotations

import json
import os
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from pathlib import Path
from urllib.parse import quote, urlsplit
from urllib.request import getproxies, proxy_bypass

from sdsetup.bootstrap import socks_relay
from sdsetup.machine.facts import Hub, Questions
from sdsetup.machine.readers.folders import hub_home
from sdsetup.machine.readers.http import Answer, request, without_secrets
from sdsetup.redaction import conceal, redact
from sdsetup.token_format import find_fault

DEFAULT_ENDPOINT = "https://huggingface.co"
_NAME_SECONDS = 1.5


def read(questions: Questions) -> Hub:
    """Ask the hub who we are and, when a model is named, whether it may be read."""
    endpoint = (os.environ.get("HF_ENDPOINT") or DEFAULT_ENDPOINT).rstrip("/")
    token, source, hidden = _token()
    fault = find_fault(token) if token else ""
    proxy, variable = _proxy(endpoint)
    hub = Hub(
        endpoint=without_secrets(endpoint),
        default_endpoint=endpoint == DEFAULT_ENDPOINT,
        proxy=without_secrets(proxy),
        proxy_variable=variable,
        token_source=source,
        token_state="none" if not token else "malformed" if fault else "unknown",
        token_fault=fault,
        hidden_token=hidden,
        model=questions.model,
    )
    asked_offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}
    if questions.offline or asked_offline:
        return replace(hub, detail="--offline" if questions.offline else "HF_HUB_OFFLINE is set")
    began = time.monotonic()
    try:
        _resolve(proxy or endpoint)
        # A malformed token would be refused by this client, before the hub could answer anything.
        usable = bool(token) and not fault
        headers = {"Authorization": f"Bearer {token}"} if usable else {}
        with _hop(proxy) as hop:
            who = request("GET", f"{endpoint}/api/whoami-v2", headers, hop)
            hub = _with_identity(hub, who, time.monotonic() - began, has_token=usable)
            if questions.model:
                hub = _with_access(hub, request("HEAD", _file(endpoint, questions.model), headers, hop))
    except (OSError, HTTPException, ValueError) as error:
        return replace(hub, reach=_reach(hub, error), detail=_said(error), seconds=time.monotonic() - began)
    return hub


def _file(endpoint: str, model: str) -> str:
    return f"{endpoint}/{quote(model)}/resolve/main/model_index.json"


def _token() -> tuple[str, str, str]:
    """Find the token that huggingface_hub would send, where it is from, and a saved one it hides."""
    file = Path(os.environ.get("HF_TOKEN_PATH") or hub_home() / "token").expanduser()
    try:
        saved = file.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        saved = ""
    conceal(saved)
    for variable in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        value = os.environ.get(variable, "").strip()
        if value:
            conceal(value)
            return value, variable, str(file) if saved and saved != value else ""
    return saved, str(file) if saved else "", ""


def _proxy(endpoint: str) -> tuple[str, str]:
    """Find the proxy for the endpoint, and the variable that sets it."""
    parts = urlsplit(endpoint)
    if not parts.hostname or proxy_bypass(parts.hostname):
        return "", ""
    proxies = getproxies()
    scheme = parts.scheme if parts.scheme in proxies else "all"
    proxy = socks_relay.canonical(proxies.get(scheme, ""))
    names = (f"{scheme.upper()}_PROXY", f"{scheme}_proxy")
    return proxy, next(
        (name for name in names if os.environ.get(name)), "the system's settings" if proxy else ""
    )


@contextmanager
def _hop(proxy: str) -> Iterator[str]:
    """Yield the HTTP proxy to go through; a SOCKS proxy is behind a relay."""
    if not socks_relay.is_socks(proxy):
        yield proxy
        return
    with socks_relay.relay(proxy) as relayed:
        yield relayed


def _resolve(address: str) -> None:
    """Look the first hop's name up within a limit; the system's own may be half a minute."""
    parts = urlsplit(address)
    failure: list[OSError] = []
    done = threading.Event()

    def look_up() -> None:
        try:
            socket.getaddrinfo(parts.hostname, parts.port or 443)
        except OSError as error:
            failure.append(error)
        done.set()

    threading.Thread(target=look_up, daemon=True).start()
    if not done.wait(_NAME_SECONDS):
        raise socket.gaierror(socket.EAI_AGAIN, f"{parts.hostname} was not found within {_NAME_SECONDS:g} s")
    if failure:
        raise failure[0]


def _with_identity(hub: Hub, answer: Answer, seconds: float, *, has_token: bool) -> Hub:
    if answer.status == 407:
        return replace(hub, reach="proxy", detail="the proxy wants a user name and password", seconds=seconds)
    if answer.status == 502 and socks_relay.is_socks(hub.proxy):
        return replace(hub, reach="proxy", detail="the SOCKS proxy does not get there", seconds=seconds)
    hub = replace(hub, reach="online", seconds=seconds, issuer=answer.issuer)
    if answer.headers.get("date"):
        try:
            there = parsedate_to_datetime(answer.headers["date"]).timestamp()
        except (TypeError, ValueError):
            pass
        else:
            hub = replace(hub, clock_ahead_seconds=time.time() - there)
    if not has_token:
        return hub
    if answer.status in {401, 403}:
        return replace(hub, token_state="refused")
    if answer.status != 200:
        return replace(hub, detail=f"the hub answered {answer.status} when asked about the token")
    try:
        kind = str(json.loads(answer.body)["auth"]["accessToken"]["role"])
    except (ValueError, KeyError, TypeError):
        kind = ""
    return replace(hub, token_state="valid", token_kind=kind)


def _with_access(hub: Hub, answer: Answer) -> Hub:
    code = answer.headers.get("x-error-code", "")
    if answer.status < 400 or code == "EntryNotFound":
        access = "granted"
    elif code == "GatedRepo" or answer.status == 403:
        access = "gated"
    elif code == "RepoNotFound" or answer.status in {401, 404}:
        access = "missing"
    else:
        return replace(hub, detail=f"the hub answered {answer.status} when asked for {hub.model}")
    host = urlsplit(answer.headers.get("location", "")).hostname or urlsplit(hub.endpoint).hostname or ""
    return replace(hub, access=access, data_host=host if access == "granted" else "")


def _reach(hub: Hub, error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return "tls"
    if hub.proxy:
        return "proxy"
    if isinstance(error, ValueError | HTTPException | ssl.SSLError):
        return "error"
    return "offline" if hub.default_endpoint else "error"


def _said(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return redact(without_secrets(text or type(error).__name__))

"""The Hub client: one client with time limits, and one retry policy."""

from __future__ import annotations

import logging
import os
import random
import threading
from contextlib import ExitStack
from functools import cache
from typing import TYPE_CHECKING, TypeVar

import httpx2
from huggingface_hub import HfApi, constants, set_client_factory
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import get_token
from huggingface_hub.utils import logging as hub_logging
from huggingface_hub.utils._http import default_client_factory, parse_ratelimit_headers

from conversions.events import Listener, Notice
from sdsetup import __version__
from sdsetup.bootstrap import socks_relay
from sdsetup.errors import SetupError
from sdsetup.redaction import conceal

if TYPE_CHECKING:
    from collections.abc import Callable

_log = logging.getLogger(__name__)
_Result = TypeVar("_Result")

_TRANSIENT_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
# A running transfer is worth a longer wait; a first request can fall back on the cache.
_TRIES_OF_TRANSFER = 6
_TRIES_OF_QUESTION = 4
_FIRST_WAIT_SECONDS = 0.25
_LONGEST_BACKOFF_SECONDS = 8.0
# A longer Retry-After is reported to the user instead of waited for.
_LONGEST_ASKED_WAIT_SECONDS = 120.0


def stall_seconds() -> float:
    """Return the read timeout of a connection in seconds; ``HF_HUB_DOWNLOAD_TIMEOUT`` sets it."""
    return float(constants.HF_HUB_DOWNLOAD_TIMEOUT)


@cache
def api() -> HfApi:
    """Return the Hub client of this process.

    Raises:
        SetupError: ``hub.proxy``: the proxy that is set cannot be used.
    """
    _make_proxies_usable()
    set_client_factory(_client)
    if not _log.isEnabledFor(logging.DEBUG):
        # The library's warnings duplicate this program's own messages.
        hub_logging.set_verbosity_error()
    conceal(get_token())
    return HfApi(library_name="sdsetup", library_version=__version__)


# A relay for a SOCKS 4 proxy, which httpx2 does not speak, lives as long as this process.
_relays = ExitStack()


def _make_proxies_usable() -> None:
    """Write proxies' addresses in a form that httpx2 and xet know, and see that a client can be made."""
    for name, address in list(os.environ.items()):
        if not name.lower().endswith("_proxy") or name.lower() == "no_proxy" or "://" not in address:
            continue
        address = socks_relay.canonical(address)
        if address.startswith("socks4"):
            address = _relays.enter_context(socks_relay.relay(address))
        os.environ[name] = address
    try:
        default_client_factory().close()
    except ImportError as error:
        raise SetupError(
            "hub.proxy",
            f"A SOCKS proxy is set, and a package for it is missing: {error}",
            "python -m sdsetup install",
        ) from error
    except ValueError as error:
        # The address itself may hold a password.
        named = sorted(name for name in os.environ if name.lower().endswith("_proxy"))
        raise SetupError(
            "hub.proxy",
            f"The address of a proxy is not understood; these are set: {', '.join(named)}.",
            "Write it as http://HOST:PORT or socks5h://HOST:PORT, then run the same command.",
        ) from error


def _client() -> httpx2.Client:
    client = default_client_factory()
    hooks = client.event_hooks
    hooks["request"].append(_limit_waiting)
    client.event_hooks = hooks
    return client


def _limit_waiting(request: httpx2.Request) -> None:
    """Set a timeout on the library's calls that have none."""
    limits = request.extensions.get("timeout") or {}
    seconds = stall_seconds()
    request.extensions["timeout"] = {
        kind: limits.get(kind) or seconds for kind in ("connect", "read", "write", "pool")
    }


class Retries:
    """Retry policy: waits between attempts, and when to give up.

    Args:
        listener: Receives notices of noticeable waits.
        stopped: When set, no more attempts are made, because another file of the download has failed.
        tries: Number of consecutive failures after which to give up.
    """

    def __init__(
        self,
        listener: Listener,
        stopped: threading.Event | None = None,
        tries: int = _TRIES_OF_TRANSFER,
    ) -> None:
        self._listener = listener
        self._tries = tries
        self._stopped = stopped or threading.Event()
        self._failures = 0

    def progressed(self) -> None:
        """Reset the failure count after progress."""
        self._failures = 0

    def wait_after(self, error: Exception) -> None:
        """Wait before the next attempt.

        Raises:
            Exception: ``error`` itself, when it is not transient or there were too many in a row.
        """
        self._failures += 1
        asked = _asked_wait(error)
        too_long = asked is not None and asked > _LONGEST_ASKED_WAIT_SECONDS
        if not is_transient(error) or self._failures >= self._tries or too_long or self._stopped.is_set():
            raise error
        backoff = min(_FIRST_WAIT_SECONDS * 2.0 ** (self._failures - 1), _LONGEST_BACKOFF_SECONDS)
        # Files fail together when a server fails: add jitter, so that they do not retry together.
        wait = asked if asked is not None else backoff * random.uniform(0.75, 1.25)  # noqa: S311
        if wait >= 2:
            self._listener(Notice(text=f"{describe(error)}; trying again in {wait:.0f} s."))
        if self._stopped.wait(wait):
            raise error


def with_retries(attempt: Callable[[], _Result], listener: Listener) -> _Result:
    """Call ``attempt`` until it succeeds, as long as its errors are transient."""
    retries = Retries(listener, tries=_TRIES_OF_QUESTION)
    while True:
        try:
            return attempt()
        except Exception as error:  # noqa: BLE001 - wait_after raises what is not to be retried
            retries.wait_after(error)


def is_transient(error: Exception) -> bool:
    """Whether an error is transient, so that the same request may succeed soon."""
    if isinstance(error, HfHubHTTPError):
        return error.response.status_code in _TRANSIENT_STATUS
    if isinstance(error, httpx2.ConnectError) and "CERTIFICATE" in str(error).upper():
        return False
    return isinstance(error, (httpx2.TimeoutException, httpx2.NetworkError, httpx2.RemoteProtocolError))


def describe(error: Exception) -> str:
    """Describe an error of a request in a few words."""
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        return "the server asks for fewer requests (429)" if status == 429 else f"the server answers {status}"
    if isinstance(error, httpx2.TimeoutException):
        return f"no answer for {stall_seconds():.0f} s"
    return "the connection broke"


def _asked_wait(error: Exception) -> float | None:
    if not isinstance(error, HfHubHTTPError):
        return None
    headers = error.response.headers
    limit = parse_ratelimit_headers(headers)
    if limit is not None and limit.remaining == 0:
        return float(limit.reset_in_seconds)
    text = headers.get("Retry-After", "").strip()
    return float(text) if text.isdigit() else None

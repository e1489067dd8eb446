"""Translate errors of the Hub into messages with the next step."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies

import httpx2
from huggingface_hub import constants
from huggingface_hub.errors import (
    DisabledRepoError,
    GatedRepoError,
    HfHubHTTPError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from sdsetup import os_errors
from sdsetup.errors import SetupError
from sdsetup.hub import session
from sdsetup.hub.token import TokenSource, token_source
from sdsetup.machine.readers import folders
from sdsetup.redaction import redact

_PAGE_OF_TOKENS = "https://huggingface.co/settings/tokens"


@contextmanager
def translate_errors(repo_id: str, revision: str | None = None) -> Iterator[None]:
    """Context manager that translates errors of requests about ``repo_id`` into SetupError.

    Raises:
        SetupError: ``hub.gated``, ``hub.private``, ``hub.missing``, ``hub.disabled``, ``hub.unauthorised``,
            ``hub.forbidden``, ``hub.no-revision``, ``hub.no-file``, ``hub.rate-limited``, ``hub.server``,
            ``hub.offline``, ``hub.proxy``, ``hub.certificate``, ``hub.unreachable``, ``hub.strange-answer``,
            ``disk.full``, ``hub.cache-not-writable``, ``hub.cache-gone``.
    """
    try:
        yield
    except SetupError:
        raise
    except RevisionNotFoundError as error:
        raise _no_revision(repo_id, revision) from error
    except GatedRepoError as error:
        raise _gated(repo_id, error) from error
    except DisabledRepoError as error:
        raise SetupError(
            "hub.disabled",
            f"The Hub has disabled {repo_id}; nobody can download it.",
            f"See why at {page(repo_id)}, or take another model.",
        ) from error
    except RemoteEntryNotFoundError as error:
        raise SetupError(
            "hub.no-file",
            f"A file that {repo_id} lists is not there: {_file_of(error)}.",
            f"The repository is inconsistent; look at {page(repo_id)}/tree/{revision or 'main'}.",
        ) from error
    except RepositoryNotFoundError as error:
        raise _not_found(repo_id, error) from error
    except HfHubHTTPError as error:
        raise _status(repo_id, error) from error
    except (OfflineModeIsEnabled, httpx2.RequestError, LocalTokenNotFoundError, UnicodeEncodeError) as error:
        raise _no_connection(error) from error
    except ImportError as error:
        # The client imports what a SOCKS proxy needs when it meets one.
        raise SetupError(
            "hub.proxy",
            f"The proxy of this network needs a Python package that is missing: {error}.",
            "Run: python -m sdsetup install",
        ) from error
    except (httpx2.InvalidURL, ValueError, KeyError, TypeError, AttributeError) as error:
        # The library could not parse the response: a captive portal, or not a mirror of the Hub.
        raise SetupError(
            "hub.strange-answer",
            f"{endpoint()} sent a response that is not from the Hub: {redact(str(error))[:200]}.",
            "The network may have a log-in page: open any page in a browser, or check HF_ENDPOINT.",
        ) from error
    except OSError as error:
        raise storage_error(error) from error


def storage_error(error: OSError) -> SetupError:
    """Say what the file system refused, and what to do about it where the Hub's cache is concerned."""
    explained = os_errors.explain(error)
    if explained.code == "disk.full":
        return SetupError(
            explained.code, explained.message, "Free some space and run the same command: it continues."
        )
    if explained.code in ("os.not_permitted", "os.read_only"):
        place = f" at {error.filename}" if error.filename else ""
        return SetupError(
            "hub.cache-not-writable",
            f"The folder for downloads cannot be written{place}.",
            f"Set {folders.cache_variable()} to a folder of yours, or use --local-dir.",
        )
    if explained.code == "os.gone" and _is_of_cache(error.filename):
        return SetupError(
            "hub.cache-gone",
            f"The folder for downloads, {folders.cache_folder()}, is not there and cannot be made.",
            f"Set {folders.cache_variable()} to a folder of yours, or unset it; then run the same command.",
        )
    # Which of HF_HUB_CACHE, HF_HOME and the rest decides is not what people would guess.
    decides = (
        f"{folders.cache_variable()} decides where downloads go; then run the same command: it continues."
    )
    return SetupError(explained.code, explained.message, " ".join(filter(None, (explained.hint, decides))))


def _is_of_cache(filename: object) -> bool:
    place, cache = Path(str(filename)), folders.cache_folder()
    return cache == place or cache in place.parents or place in cache.parents


def endpoint() -> str:
    """Return the URL of the Hub, or of the mirror in ``HF_ENDPOINT``."""
    return constants.ENDPOINT


def page(repo_id: str) -> str:
    """Return the URL of a model's page."""
    return f"{endpoint()}/{repo_id}"


def _gated(repo_id: str, error: GatedRepoError) -> SetupError:
    said = (error.server_message or "").lower()
    source = token_source()
    if source is None:
        return SetupError(
            "hub.gated",
            f"{repo_id} can be downloaded only after accepting its terms, by an account that is logged in.",
            f"Open {page(repo_id)}, log in and accept the terms; then run: sdsetup login",
        )
    if "awaiting" in said or "pending" in said:
        return SetupError(
            "hub.gated",
            f"Your request for {repo_id} waits for its authors.",
            f"They write when they decide; see {page(repo_id)}. Then run the same command again.",
        )
    if "reject" in said:
        return SetupError(
            "hub.gated",
            f"The authors of {repo_id} have refused this account.",
            f"Ask them at {page(repo_id)}/discussions, or take another model.",
        )
    if "fine-grained" in said:
        return SetupError(
            "hub.gated",
            f"The token {source.where} may not read gated repositories such as {repo_id}.",
            f"At {_PAGE_OF_TOKENS}, allow it to read public gated repositories.",
        )
    return SetupError(
        "hub.gated",
        f"{repo_id} can be downloaded only after accepting its terms, and the account of the token "
        f"{source.where} has not.",
        f"Open {page(repo_id)} with that account, accept the terms, and run the same command again.",
    )


def _not_found(repo_id: str, error: HfHubHTTPError) -> SetupError:
    if error.response.status_code == 401 and token_source() is None:
        # Without a log-in, the Hub gives the same response for private and missing repositories.
        return SetupError(
            "hub.private",
            f"There is no public model {repo_id}: it is private, or the name is wrong.{_similar(repo_id)}",
            "If it is private, run: sdsetup login",
        )
    if error.response.status_code in (401, 403):
        return SetupError(
            "hub.private",
            f"{repo_id} is private, and the token {_where(token_source())} may not read it.",
            f"Log in with an account that may (sdsetup login), or widen the token at {_PAGE_OF_TOKENS}",
        )
    return SetupError(
        "hub.missing",
        f"The Hub knows no model {repo_id}.{_similar(repo_id)}",
        f"Check the name at {endpoint()}/models?search={repo_id.split('/')[-1]}"
        " (a private model of another account looks the same).",
    )


def _similar(repo_id: str) -> str:
    """Suggest similar model names; empty when there are none or the Hub does not respond."""
    from difflib import SequenceMatcher

    owner, _, word = repo_id.rpartition("/")
    found: dict[str, float] = {}
    # The Hub's search finds no misspelt words, so search by owner and by words of the name too.
    parts = sorted((part for part in re.split(r"[-_.]", word) if len(part) > 2), key=len, reverse=True)[:2]
    searches = [(word, None), (None, owner or None), *((part, None) for part in parts)]
    try:
        for text, author in searches:
            for model in session.api().list_models(search=text, author=author, limit=50, token=False):
                found[model.id] = SequenceMatcher(None, repo_id.lower(), model.id.lower()).ratio()
            if any(score > 0.8 for score in found.values()):
                break
    except (HfHubHTTPError, httpx2.RequestError, OfflineModeIsEnabled, ValueError, KeyError, TypeError):
        return ""
    close = sorted((name for name, score in found.items() if score > 0.5), key=lambda name: -found[name])[:3]
    return f" Did you mean {' or '.join(close)}?" if close else ""


def _status(repo_id: str, error: HfHubHTTPError) -> SetupError:
    status = error.response.status_code
    source = token_source()
    if status == 401 and source is not None and source.fault:
        return _bad_token(source)
    if status == 401:
        return SetupError(
            "hub.unauthorised",
            f"The Hub does not accept the token {_where(source)}: it is wrong, expired or revoked.",
            f"Correct or unset {source.variable}, or make a new token at {_PAGE_OF_TOKENS}"
            if source is not None and source.variable
            else "Run: sdsetup login",
        )
    if status == 403:
        said = redact(error.server_message or "").strip().rstrip(".")
        return SetupError(
            "hub.forbidden",
            f"The Hub refuses access to {repo_id}{': ' + said if said else ''}.",
            f"Check what the token {_where(source)} may do at {_PAGE_OF_TOKENS}"
            if source is not None
            else f"Open {page(repo_id)} to see what it asks for, then run: sdsetup login",
        )
    if status == 429:
        wait = error.response.headers.get("Retry-After", "")
        return SetupError(
            "hub.rate-limited",
            f"The Hub asks for fewer requests{f' and to wait {wait} s' if wait.isdigit() else ''}.",
            "Wait, then run the same command: it continues."
            + ("" if source is not None else " After sdsetup login the limit is higher."),
        )
    if status >= 500:
        return SetupError(
            "hub.server",
            f"{_host(error)} keeps responding with status {status}.",
            "See https://status.huggingface.co, and run the same command later: it continues.",
        )
    return SetupError(
        "hub.strange-answer", f"{_host(error)} answered {status} about {repo_id}.", page(repo_id)
    )


def _no_revision(repo_id: str, revision: str | None) -> SetupError:
    names: list[str] = []
    try:
        refs = session.api().list_repo_refs(repo_id)
        names = [ref.name for ref in (*refs.branches, *refs.tags)][:8]
    except (HfHubHTTPError, httpx2.RequestError, OfflineModeIsEnabled, ValueError, KeyError, TypeError):
        names = []
    return SetupError(
        "hub.no-revision",
        f"{repo_id} has no revision {revision!r}.",
        f"It has: {', '.join(names)}."
        if names
        else f"See {page(repo_id)}/tree/main for its branches and tags.",
    )


def _no_connection(error: Exception) -> SetupError:
    if isinstance(error, (httpx2.LocalProtocolError, UnicodeEncodeError)):
        # The only part of a request that is not ours is the token.
        return _bad_token(token_source())
    if isinstance(error, OfflineModeIsEnabled):
        return SetupError(
            "hub.offline",
            "HF_HUB_OFFLINE is set, so the Hub cannot be queried.",
            "Unset HF_HUB_OFFLINE and run the same command, or name a local folder.",
        )
    if isinstance(error, httpx2.ProxyError):
        return SetupError(
            "hub.proxy",
            f"The proxy of this network refused: {redact(str(error))}.",
            "Check HTTPS_PROXY, HTTP_PROXY and NO_PROXY.",
        )
    if "CERTIFICATE" in str(error).upper():
        return SetupError(
            "hub.certificate",
            f"The certificate of {endpoint()} is not trusted here.",
            "If the network inspects traffic, set SSL_CERT_FILE to its certificate; check the clock too.",
        )
    if isinstance(error, httpx2.TooManyRedirects):
        return SetupError(
            "hub.strange-answer",
            f"{endpoint()} redirects every request in a loop.",
            "Check HF_ENDPOINT; the network may have a log-in page.",
        )
    reason = (
        f"no response for {session.stall_seconds():.0f} s"
        if isinstance(error, httpx2.TimeoutException)
        else re.sub(r"^\[Errno -?\d+\] ", "", redact(str(error))) or type(error).__name__
    )
    return SetupError(
        "hub.unreachable",
        f"{endpoint()} cannot be reached: {reason}.",
        f"Check the network{_network_settings()}, then run the same command: it continues.",
    )


def _bad_token(source: TokenSource | None) -> SetupError:
    """Say what is wrong with the token as it stands in its variable or file."""
    fault = (source.fault if source is not None else "") or "has letters that no token has"
    return SetupError(
        "hub.bad-token",
        f"The token {_where(source)} {fault}.",
        f"Set {source.variable} to the token alone, on one line and without quotes; see {_PAGE_OF_TOKENS}"
        if source is not None and source.variable
        else f"Copy it again from {_PAGE_OF_TOKENS} and run: sdsetup login",
    )


def _network_settings() -> str:
    """Name the network settings that affect requests to the Hub."""
    proxies = getproxies()
    kind = next((each for each in (urlsplit(endpoint()).scheme, "all") if proxies.get(each)), "")
    proxy = urlsplit(proxies.get(kind, "")).hostname
    settings = [f"the proxy {proxy} ({kind.upper()}_PROXY)"] if proxy else []
    settings += ["HF_ENDPOINT"] if os.environ.get("HF_ENDPOINT") else []
    return f", {' and '.join(settings)}" if settings else ""


def _where(source: TokenSource | None) -> str:
    return source.where if source is not None else "that was sent"


def _host(error: HfHubHTTPError) -> str:
    return urlsplit(str(error.response.url)).netloc or endpoint()


def _file_of(error: HfHubHTTPError) -> str:
    _, _, found = urlsplit(str(error.response.url)).path.partition("/resolve/")
    return found.partition("/")[2] or "unknown"  # behind the revision

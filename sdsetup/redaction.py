"""Keep tokens and passwords out of everything that is written: output, logs, messages, reports.

``redacting_streams`` replaces stdout and stderr, so that all text of the process passes ``redact``,
whoever writes it: the command line, a library's warning, a traceback.

Standard library only, in a syntax that older Pythons can read: they are told by ``__main__`` what is missing.
"""

from __future__ import annotations

import atexit
import base64
import contextlib
import logging
import os
import re
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO
from urllib.parse import quote, unquote

HIDDEN = "<hidden>"

# Start of a word; letters of an escape sequence (\n in JSON, %3A in addresses) come before a word, not in it.
_START = r"(?:(?<![A-Za-z0-9])|(?<=\\[nrt])|(?<=\\u[0-9a-fA-F]{4})|(?<=%[0-9A-F]{2}))"
# Every token of the Hub starts so. A capital letter or a digit tells a token from a name such as hf_models.
_TOKEN = re.compile(
    _START + r"(?:(?:api_org|hf_oauth|hf_app|hf_jwt)_[\w.\-]{8,}"
    r"|hf_(?=[a-z0-9_\-]*[A-Z])[A-Za-z0-9_\-]{8,}"
    r"|hf_(?=[a-z]*[0-9])[a-z0-9]{8,}"
    r"|hf_[a-z]{16,})"
)
_BEARER = re.compile(r"(?i)\b(bearer|basic)(\s+|%20)[^\s'\",)]{6,}")
# User and password of an address; a password may hold an @ itself, and paths have one slash left or turned.
_LOGIN = re.compile(r"(?i)\b([a-z][a-z0-9+.\-]*:[/\\]{1,2})[^/\\\s'\"<>]+@")
_PARAMETER = re.compile(
    r"(?i)([?&#;](?:x-amz-signature|x-amz-security-token|x-amz-credential|signature|key-pair-id|policy|sig"
    r"|(?:[a-z]+[_-])*token|api[_-]?key|password|passwd|secret)=)[^&\s'\"<>]+"
)
_SECRET_VARIABLE = re.compile(r"(?:^|_)(?:TOKEN|PASSWORD|SECRET)$")
_SHORTEST = 6
# Of a file that is taken for a token's.
_MOST_LINES = 16
_MOST_CHARACTERS = 16384
_GOODBYE_SECONDS = 5.0

_known: set[str] = set()


def conceal(secret: str | None) -> None:
    """Remember a secret of any shape, so that ``redact`` finds it wherever it turns up.

    A secret of several lines is also found line by line, without its quotes, and with its lines joined.
    """
    if not secret:
        return
    lines = [line.strip().strip("'\"").strip() for line in secret.splitlines()[:_MOST_LINES]]
    for text in (secret.strip(), "".join(secret.split()), "".join(lines), *lines):
        if len(text) >= _SHORTEST:
            _known.update((text, quote(text, safe="")))


def learn() -> None:
    """Remember the secrets of this process's environment and the Hub's saved tokens.

    Source of the places: huggingface_hub's documentation of its environment variables.
    """
    _learn_environment()
    home = Path(
        os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")
    )
    saved = os.environ.get("HF_TOKEN_PATH") or home / "token"
    for place in (saved, os.environ.get("HF_STORED_TOKENS_PATH") or home / "stored_tokens"):
        with contextlib.suppress(OSError, ValueError, RuntimeError):
            path = Path(place).expanduser()
            if not path.is_file():
                continue
            with path.open(encoding="utf-8", errors="replace") as file:
                text = file.read(_MOST_CHARACTERS)
            if place == saved:
                conceal(text)
            else:
                for name, _, value in (line.partition("=") for line in text.splitlines()):
                    if name.strip() in ("hf_token", "refresh_token"):
                        conceal(value)


def redact(text: str) -> str:
    """Return ``text`` without tokens, passwords, authorization headers and signatures of addresses."""
    _learn_environment()
    for secret in sorted(_known, key=len, reverse=True):
        if secret in text:
            text = text.replace(secret, HIDDEN)
    text = _BEARER.sub(rf"\1\2{HIDDEN}", text)
    text = _TOKEN.sub(HIDDEN, text)
    if "@" in text:
        text = _LOGIN.sub(rf"\1{HIDDEN}@", text)
    return _PARAMETER.sub(rf"\1{HIDDEN}", text)


def redact_document(value: Any) -> Any:
    """Return a JSON document without secrets: every string in it passes ``redact`` before it is escaped."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {redact_document(key): redact_document(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [redact_document(each) for each in value]
    return value


class RedactingFormatter(logging.Formatter):
    """A log formatter whose output, tracebacks included, holds no secret."""

    def format(self, record: logging.LogRecord) -> str:
        """Format ``record`` and hide what is secret in it."""
        return redact(super().format(record))


class RedactingStream:
    """A text stream that redacts what is written and passes everything else on."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write ``text`` without its secrets; returns its length, as the caller counts it."""
        self._stream.write(redact(text))
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Write each of ``lines``."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def redacting_streams() -> Iterator[None]:
    """Let all text that the block writes to stdout and stderr pass ``redact``."""
    learn()
    before = sys.stdout, sys.stderr
    for name, stream in zip(("stdout", "stderr"), before, strict=True):
        if stream is not None and not isinstance(stream, RedactingStream):
            setattr(sys, name, RedactingStream(stream))
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def redact_process_output() -> None:
    """Let all that this process writes from now on pass ``redact``, what native code writes too.

    For child processes, which inherit their parent's stdout and stderr. A line goes out when it is complete,
    or the process ends; when it is killed, an incomplete one is lost.
    """
    learn()
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if stream is not None and not isinstance(stream, RedactingStream):
            setattr(sys, name, RedactingStream(stream))  # a console of Windows is not written by number
        try:
            real = os.dup(descriptor)
        except OSError:  # closed
            continue
        reading, writing = os.pipe()
        os.dup2(writing, descriptor)
        os.close(writing)
        thread = threading.Thread(target=_pass_on, args=(reading, real), daemon=True)
        thread.start()
        atexit.register(_settle, name, descriptor, real, thread)


def _pass_on(reading: int, real: int) -> None:
    """Copy lines without their secrets until the other end is closed."""
    with os.fdopen(reading, "rb") as lines, contextlib.suppress(OSError):
        for line in lines:
            os.write(real, redact(line.decode("utf-8", "replace")).encode("utf-8", "replace"))


def _settle(name: str, descriptor: int, real: int, thread: threading.Thread) -> None:
    with contextlib.suppress(OSError, ValueError):
        getattr(sys, name).flush()
    os.dup2(real, descriptor)  # closes the pipe, so that the thread ends
    thread.join(_GOODBYE_SECONDS)


def _learn_environment() -> None:
    for name, value in os.environ.items():
        upper = name.upper()
        if _SECRET_VARIABLE.search(upper):
            conceal(value)
        elif upper.endswith("_PROXY"):
            _conceal_login(value)


def _conceal_login(address: str) -> None:
    """Remember what stands before the last @ of a proxy's address, whatever letters it holds."""
    login, at, _ = address.rpartition("@")
    login = login.rpartition("://")[2] if "://" in login else login
    if not at:
        return
    conceal(login)
    conceal(login.partition(":")[2])
    conceal(unquote(login.partition(":")[2]))
    conceal(base64.b64encode(unquote(login).encode()).decode())

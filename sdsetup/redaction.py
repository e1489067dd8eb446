"""Keeping tokens out of everything that is written: logs, messages, reports.

Standard library only.
"""

from __future__ import annotations

import logging
import os
import re

_HIDDEN = "<hidden>"

# Every access token of the Hub starts so; refresh tokens and the device's code do as well.
_TOKEN = re.compile(r"\b(hf|api_org|hf_oauth|hf_app)_[A-Za-z0-9_.\-]{8,}")
_BEARER = re.compile(r"(?i)\b(bearer|basic)\s+[^\s'\",)]{6,}")
_SIGNATURE = re.compile(
    r"(?i)([?&](?:x-amz-signature|x-amz-security-token|signature|key-pair-id|policy|token)=)[^&\s'\"]+"
)

_known: set[str] = set()


def conceal(secret: str | None) -> None:
    """Remember a secret of any shape, so that ``redact`` finds it wherever it turns up."""
    if secret and len(secret) >= 6:
        _known.add(secret)


def redact(text: str) -> str:
    """Return ``text`` without tokens, authorization headers and the signatures of download addresses."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        conceal(os.environ.get(name, "").strip())
    for secret in sorted(_known, key=len, reverse=True):
        text = text.replace(secret, _HIDDEN)
    text = _BEARER.sub(rf"\1 {_HIDDEN}", text)
    text = _TOKEN.sub(_HIDDEN, text)
    return _SIGNATURE.sub(rf"\1{_HIDDEN}", text)


class RedactingFormatter(logging.Formatter):
    """A log formatter whose output, tracebacks included, holds no secret."""

    def format(self, record: logging.LogRecord) -> str:
        """Format ``record`` and hide what is secret in it."""
        return redact(super().format(record))

"""What was found out about devices, kept for a month in the user's cache folder."""

from __future__ import annotations

import json
import logging
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import platformdirs

from conversions.package.layout import write_json
from conversions.providers.devices import Device

logger = logging.getLogger(__name__)

DAYS = 30
"""How long an answer is kept: a newer driver may have other kernels."""


def kept(device: Device, question: str) -> bool | None:
    """Return what was found out, while it is kept; None where nothing was.

    Args:
        device: The device. It is known by its name, provider and number, and by ONNX Runtime's version; its
            driver's version is not known.
        question: What was asked of it, in words.
    """
    found: Any = _read().get(_key(device, question))
    try:
        answer, days = found["answer"], (date.fromisoformat(found["until"]) - date.today()).days
    except (KeyError, TypeError, ValueError):
        return None
    return answer if isinstance(answer, bool) and 0 < days <= DAYS else None


def keep(device: Device, question: str, *, answer: bool, days: int = DAYS) -> None:
    """Keep what was found out; where nothing can be written, it is found out again.

    Args:
        device: The device, as of :func:`kept`.
        question: What was asked of it, in words.
        answer: What was found out.
        days: How long to keep it, at most ``DAYS``.
    """
    until = date.today() + timedelta(days=days)
    document = {**_read(), _key(device, question): {"answer": answer, "until": str(until)}}
    try:
        file().parent.mkdir(parents=True, exist_ok=True)
        write_json(file(), document)
    except (OSError, ValueError) as error:  # text that is no Unicode, of a damaged file, is a ValueError
        logger.info("%s cannot be written: %s", file(), error)


def file() -> Path:
    """Return where answers are kept."""
    return platformdirs.user_cache_path("sdsetup", appauthor=False) / "devices.json"


def _key(device: Device, question: str) -> str:
    import onnxruntime

    return f"{device}, ONNX Runtime {onnxruntime.__version__}: {question}"


def _read() -> dict[str, Any]:
    """Read all answers; none where there is no file, or where it is damaged."""
    try:
        found = json.loads(file().read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}

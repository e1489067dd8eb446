"""What was found out about devices, kept for a month in the user's cache folder."""

from __future__ import annotations

import json
import logging
from datetime import date
from pathlib import Path
from typing import Any

import platformdirs

from conversions.package.layout import write_json
from conversions.providers.devices import Device

logger = logging.getLogger(__name__)

DAYS = 30
"""How long an answer is kept: a newer driver may have other kernels."""


def kept(device: Device, question: str) -> bool | None:
    """Return what was found out less than ``DAYS`` ago; None where nothing was.

    Args:
        device: The device.
        question: In words.
    """
    answer = _read().get(_key(device, question), {})
    try:
        age = date.today() - date.fromisoformat(answer["found"])
        return answer["answer"] is True if age.days in range(DAYS) else None
    except (KeyError, TypeError, ValueError):
        return None


def keep(device: Device, question: str, *, answer: bool) -> None:
    """Keep what was found out; where nothing can be written, it is found out again.

    Args:
        device: The device.
        question: In words.
        answer: What was found out.
    """
    document = {**_read(), _key(device, question): {"answer": answer, "found": str(date.today())}}
    try:
        file().parent.mkdir(parents=True, exist_ok=True)
        write_json(file(), document)
    except OSError as error:
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
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}

"""Read this machine's facts side by side, each reader within its own time.

Standard library only. A reader that fails or takes too long leaves None and its reason in
``Environment.unknown``, never an exception.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any

from sdsetup.machine.facts import Environment, Questions
from sdsetup.machine.readers import LIMITS_SECONDS, Reader, identity, readers


def probe(questions: Questions, only: frozenset[str] | None = None) -> Environment:
    """Read this machine.

    Args:
        questions: What the reading depends on.
        only: Fields of Environment to read; None reads all.
    """
    chosen = {name: reader for name, reader in readers().items() if only is None or name in only}
    values, unknown, seconds = _side_by_side(chosen, questions, LIMITS_SECONDS)
    return Environment(**values, **identity(), unknown=unknown, seconds=seconds)


def _side_by_side(
    readers: Mapping[str, Reader], questions: Questions, limits: Mapping[str, float]
) -> tuple[dict[str, Any], dict[str, str], dict[str, float]]:
    values: dict[str, Any] = {}
    unknown: dict[str, str] = {}
    seconds: dict[str, float] = {}
    began = time.monotonic()

    def read(name: str, reader: Reader) -> None:
        try:
            value = reader(questions)
        except Exception as error:  # noqa: BLE001 - a reader must never end the doctor
            unknown[name] = f"reading it failed: {type(error).__name__}: {error}"
        else:
            values[name] = value
        seconds[name] = time.monotonic() - began

    threads = {
        # Daemons: a reader that hangs in the system is left behind, and does not keep the program alive.
        name: threading.Thread(target=read, args=(name, reader), daemon=True)
        for name, reader in readers.items()
    }
    for thread in threads.values():
        thread.start()
    for name, thread in threads.items():
        thread.join(max(0.0, began + limits[name] - time.monotonic()))
    late = {
        name: f"no answer within {limits[name]:g} s" for name, thread in threads.items() if thread.is_alive()
    }
    # Copies: a late thread may still write.
    done = {name: value for name, value in list(values.items()) if name not in late}
    return done, {**dict(unknown), **late}, dict(seconds)

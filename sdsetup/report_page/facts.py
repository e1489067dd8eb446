"""Facts of the machine for a report: what decides results and speed, nothing that names a person."""

from __future__ import annotations

import platform
from contextlib import suppress
from pathlib import Path

import psutil

from sdsetup import __version__
from sdsetup.disk_space import human_size
from sdsetup.redaction import redact


def read() -> dict[str, str]:
    """Return facts by what they are of."""
    found = {
        "sdsetup": __version__,
        "system": f"{platform.system()} {platform.release()}",
        "processor": f"{platform.machine()}, {psutil.cpu_count() or '?'} threads",
        "memory": human_size(psutil.virtual_memory().total),
        "Python": platform.python_version(),
    }
    with suppress(ImportError):
        import onnxruntime

        providers = (name.removesuffix("ExecutionProvider") for name in onnxruntime.get_available_providers())
        found["ONNX Runtime"] = f"{onnxruntime.__version__} ({', '.join(providers)})"
    found["graphics"] = _graphics() or "none found"
    return {name: without_person(text) for name, text in found.items()}


def without_person(text: str) -> str:
    """Take tokens, passwords and the home folder, which names the user, out of a text."""
    home = str(Path.home())
    kept = redact(text)
    return kept.replace(home, "~") if len(home) > 3 else kept


def _graphics() -> str:
    from sdsetup.machine import adapters

    try:
        found = adapters.read()
    except OSError:
        return ""
    named = []
    for adapter in found:
        memory = f", {human_size(adapter.vram_bytes)}" if adapter.vram_bytes else ""
        driver = f", driver {adapter.driver_version}" if adapter.driver_version else ""
        named.append(f"{adapter.name}{memory}{driver}")
    return "; ".join(named)

"""How much memory a piece of work took at its peak, watched from a thread."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from sdsetup.runtime.devices import Device

_EVERY_SECONDS = 0.05
# Asking nvidia-smi starts a program.
_EVERY_SECONDS_NVIDIA = 0.5
_MEBIBYTE = 2**20


@dataclass(kw_only=True)
class MemoryPeak:
    """What was seen so far.

    Attributes:
        ram_bytes: Most resident memory of the watched process.
        vram_bytes: Most graphics memory in use on the device beyond what was in use at the start; None where
            this system does not tell.
    """

    ram_bytes: int = 0
    vram_bytes: int | None = None
    _stop: threading.Event = field(default_factory=threading.Event, repr=False)


@contextmanager
def watched(device: Device, process_id: Callable[[], int]) -> Iterator[MemoryPeak]:
    """Watch memory while the block runs.

    Args:
        device: Where the work runs.
        process_id: Says which process does the work; asked again and again, since it may be replaced.
    """
    peak = MemoryPeak()
    vram = _vram_reader(device)
    before = vram() if vram else None
    pause = _EVERY_SECONDS_NVIDIA if vram is _nvidia else _EVERY_SECONDS

    def look() -> None:
        try:
            peak.ram_bytes = max(peak.ram_bytes, psutil.Process(process_id()).memory_info().rss)
        except psutil.Error:
            return
        now = vram() if vram else None
        if now is not None and before is not None:
            peak.vram_bytes = max(peak.vram_bytes or 0, now - before)

    def keep_looking() -> None:
        while not peak._stop.wait(pause):
            look()

    thread = threading.Thread(target=keep_looking, daemon=True)
    thread.start()
    try:
        yield peak
        look()
    finally:
        peak._stop.set()
        thread.join()


def _vram_reader(device: Device) -> Callable[[], int | None] | None:
    """Return a function that reads the graphics memory in use, where there is a way to."""
    if device.provider.target == "cuda" and _nvidia() is not None:
        return _nvidia
    if device.provider.target == "migraphx" and _amdgpu() is not None:
        return _amdgpu
    return None


def _nvidia() -> int | None:
    """Ask NVIDIA's own tool about the first card."""
    command = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
        return int(done.stdout.split()[0]) * _MEBIBYTE
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None


def _amdgpu() -> int | None:
    """Read what Linux's amdgpu driver says of all its cards.

    Source: Linux, Documentation/gpu/amdgpu/driver-misc.rst, mem_info_vram_used.
    """
    files = list(Path("/sys/class/drm").glob("card*/device/mem_info_vram_used"))
    return sum(int(file.read_text()) for file in files) if files else None

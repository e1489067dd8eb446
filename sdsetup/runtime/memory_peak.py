"""Measure the peak memory of a block of code by sampling it from a thread."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from sdsetup.runtime.devices import Device

_EVERY_SECONDS = 0.05
# Each sample starts the program nvidia-smi.
_EVERY_SECONDS_NVIDIA = 0.5
_MEBIBYTE = 2**20


@dataclass(kw_only=True)
class MemoryPeak:
    """Peak memory so far.

    Attributes:
        ram_bytes: Peak resident memory of the processes together.
        vram_bytes: Peak graphics memory of the device above its use at the start; None where
            this system does not report it.
    """

    ram_bytes: int = 0
    vram_bytes: int | None = None
    _stop: threading.Event = field(default_factory=threading.Event, repr=False)


@contextmanager
def measure_memory_peak(device: Device, process_ids: Callable[[], Collection[int]]) -> Iterator[MemoryPeak]:
    """Measure peak memory while the ``with`` block runs.

    Args:
        device: Where the work runs.
        process_ids: Returns the ids of the processes to measure; called for each sample, as they may change.
    """
    peak = MemoryPeak()
    vram = _vram_reader(device)
    before = vram() if vram else None
    pause = _EVERY_SECONDS_NVIDIA if vram is _nvidia else _EVERY_SECONDS

    def sample() -> None:
        try:
            held_bytes = sum(psutil.Process(each).memory_info().rss for each in process_ids())
            peak.ram_bytes = max(peak.ram_bytes, held_bytes)
        except psutil.Error:
            return
        now = vram() if vram else None
        if now is not None and before is not None:
            peak.vram_bytes = max(peak.vram_bytes or 0, now - before)

    def keep_sampling() -> None:
        while not peak._stop.wait(pause):
            sample()

    thread = threading.Thread(target=keep_sampling, daemon=True)
    thread.start()
    try:
        yield peak
        sample()
    finally:
        peak._stop.set()
        thread.join()


def _vram_reader(device: Device) -> Callable[[], int | None] | None:
    """Return a function that reads the graphics memory in use, or None where that is not possible."""
    if device.provider.target == "cuda" and _nvidia() is not None:
        return _nvidia
    if device.provider.target == "migraphx" and _amdgpu() is not None:
        return _amdgpu
    return None


def _nvidia() -> int | None:
    """Read the memory use of the first GPU from nvidia-smi."""
    command = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
        return int(done.stdout.split()[0]) * _MEBIBYTE
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None


def _amdgpu() -> int | None:
    """Read the memory use of all GPUs from Linux's amdgpu driver.

    Source: Linux, Documentation/gpu/amdgpu/driver-misc.rst, mem_info_vram_used.
    """
    files = list(Path("/sys/class/drm").glob("card*/device/mem_info_vram_used"))
    return sum(int(file.read_text()) for file in files) if files else None

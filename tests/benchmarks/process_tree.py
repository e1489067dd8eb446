"""Run a command and watch what it and its children cost: wall time, memory, disk."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a command cost.

    Attributes:
        wall_seconds: From start to end.
        peak_rss_bytes: Largest sum of the resident sets of all its processes, looked at 20 times a second.
        peak_disk_bytes: Largest fall of the free space of ``disk`` meanwhile.
    """

    wall_seconds: float
    peak_rss_bytes: int
    peak_disk_bytes: int


def drop_caches() -> bool:
    """Let the system forget what it has read, so that the next run is cold; say whether that was possible."""
    os.sync()
    try:
        Path("/proc/sys/vm/drop_caches").write_text("3", "ascii")
    except OSError:
        return False
    return True


@contextmanager
def memory_taken() -> Iterator[list[int]]:
    """Watch this process: the list holds one number, the bytes that it has taken at most since then."""
    process = psutil.Process(os.getpid())
    before = process.memory_info().rss
    taken, done = [0], threading.Event()

    def watch() -> None:
        while not done.is_set():
            taken[0] = max(taken[0], process.memory_info().rss - before)
            time.sleep(0.01)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield taken
    finally:
        done.set()
        watcher.join()


def seconds_of_children() -> float:
    """Processor time that ended children and theirs have used, which a busy machine hardly changes."""
    times = os.times()
    return times.children_user + times.children_system


def run(argv: Sequence[str], disk: Path, env: dict[str, str] | None = None) -> Cost:
    """Run a command to its end.

    Raises:
        subprocess.CalledProcessError: It failed; its last output is in the error.
    """
    free = shutil.disk_usage(disk).free
    peaks = {"rss": 0, "disk": 0}
    began = time.perf_counter()
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env)
    assert process.stdout is not None
    lines: list[str] = []
    reading = threading.Thread(target=lambda: lines.extend(process.stdout or ()), daemon=True)
    reading.start()
    root = psutil.Process(process.pid)
    while process.poll() is None:
        rss = 0
        try:
            for each in (root, *root.children(recursive=True)):
                try:
                    rss += each.memory_info().rss
                except psutil.Error:
                    continue
        except psutil.Error:
            pass
        peaks["rss"] = max(peaks["rss"], rss)
        peaks["disk"] = max(peaks["disk"], free - shutil.disk_usage(disk).free)
        time.sleep(0.05)
    wall = time.perf_counter() - began
    reading.join()
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, argv, "".join(lines[-40:]))
    return Cost(wall_seconds=round(wall, 2), peak_rss_bytes=peaks["rss"], peak_disk_bytes=peaks["disk"])


def machine() -> dict[str, Any]:
    """Describe the machine, for a reader of the numbers."""
    return {
        "system": platform.platform(),
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "load": os.getloadavg() if hasattr(os, "getloadavg") else None,
    }

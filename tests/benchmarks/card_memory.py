"""Watch how much memory of an NVIDIA card is in use, by all programs."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

EVERY_SECONDS = 0.005


@contextmanager
def watch() -> Iterator[list[tuple[float, int]]]:
    """Note time and graphics memory in use, above what is in use now, over and over."""
    samples: list[tuple[float, int]] = []
    read = _reader()
    before, stop = read(), threading.Event()

    def keep_sampling() -> None:
        while before is not None and not stop.wait(EVERY_SECONDS):
            now = read()
            if now is not None:
                samples.append((time.time(), now - before))

    thread = threading.Thread(target=keep_sampling, daemon=True)
    thread.start()
    try:
        yield samples
    finally:
        stop.set()
        thread.join()


def _reader() -> Callable[[], int | None]:
    """Return a function that reads the first card's memory in use: quick with nvidia-ml-py, slow without."""
    try:
        import pynvml
    except ImportError:
        return _of_program
    try:
        pynvml.nvmlInit()
        first = pynvml.nvmlDeviceGetHandleByIndex(0)
    except pynvml.NVMLError:
        return lambda: None
    return lambda: int(pynvml.nvmlDeviceGetMemoryInfo(first).used)


def _of_program() -> int | None:
    try:
        answer = _answer(["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"])
        return int(answer.split()[0]) * 2**20
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None


def card() -> str:
    """Return the card's name and its driver's version; empty where they cannot be read."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        return _answer(query).strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def _answer(command: list[str]) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout

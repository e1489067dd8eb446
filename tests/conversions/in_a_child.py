"""Functions that tests run in child processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import Any

import numpy as np

from conversions.errors import ConversionError


def pid() -> int:
    return os.getpid()


def double(values: Any) -> Any:
    sys.stdout.write("noise on standard output\n")
    return values * 2


def fill(count: int) -> Any:
    return np.ones(count, np.float32)


def nap(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def refuse() -> None:
    raise ConversionError("a.code", "A message.", "A hint.")


class AwkwardError(Exception):
    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} and {second}")


def raise_awkward() -> None:
    raise AwkwardError("this", "that")


def raise_type_error() -> None:
    raise TypeError("unsupported operand")


def exit_with(status: int) -> None:
    sys.stderr.write("goodbye\n")
    os._exit(status)


def exit_with_bytes(words: bytes) -> None:
    os.write(2, words)
    os._exit(3)


def die_by(name: str) -> None:
    os.kill(os.getpid(), getattr(signal, name))
    time.sleep(10)


def hoard() -> None:
    held = []
    while True:
        held.append(np.ones(1 << 22, np.uint8))
        time.sleep(0.002)


def say_no_memory() -> None:
    sys.stderr.write("terminate called after throwing an instance of 'std::bad_alloc'\n")
    os._exit(134)


def start_sleeper() -> int:
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]).pid

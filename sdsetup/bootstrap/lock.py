"""One process at a time sets up an environment; the others wait for it.

Standard library only. The system takes the lock back when its process ends, however it ends, so nothing is
ever left locked; the empty file stays, since removing it would let two hold two locks of one name.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

_PAUSE_SECONDS = 0.2


@contextmanager
def alone(path: Path, on_wait: Callable[[], None]) -> Iterator[None]:
    """Hold the lock of that name while the block runs.

    Where no such file can be made or locked, the block runs all the same: the lock is a help, not a need.

    Args:
        path: The lock's file; folders above it are made.
        on_wait: Called once if another process holds the lock, before waiting for it.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("ab")
    except OSError:
        yield
        return
    with file:
        if not _take(file):
            on_wait()
            while not _take(file):
                time.sleep(_PAUSE_SECONDS)
        yield


if sys.platform == "win32":
    import msvcrt

    def _take(file: BinaryIO) -> bool:
        file.seek(0)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:  # its number does not tell reliably whether somebody else has it
            return False
        return True

else:
    import fcntl

    def _take(file: BinaryIO) -> bool:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:  # a file system that knows no locks: there is nothing to wait for
            return True
        return True

"""One process at a time sets up an environment; the others wait for it.

Standard library only. The system takes the lock back when its process ends, however it ends, so nothing is
ever left locked. The empty file stays until ``uninstall`` removes it.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

_PAUSE_SECONDS = 0.2


@contextmanager
def alone(path: Path, on_wait: Callable[[], None], *, remove: bool = False) -> Iterator[None]:
    """Hold the lock of that name while the block runs.

    Where no such file can be made or locked, the block runs all the same: the lock is a help, not a need.

    Args:
        path: The lock's file; folders above it are made.
        on_wait: Called once if another process holds the lock, before waiting for it.
        remove: Whether the file goes at the end. Who waits for it then makes one of its own.
    """
    try:
        file = _open_taken(path, on_wait)
    except OSError:
        yield
        return
    try:
        with file:
            yield
            if remove and sys.platform != "win32":  # while it is held: nobody can have taken it anew
                path.unlink(missing_ok=True)
    finally:
        if remove and sys.platform == "win32":
            with suppress(OSError):  # somebody waits for it, and Windows removes no file that is open
                path.unlink()


def of_environment(environment: Path) -> Path:
    """Name the lock of an environment: beside it, since what makes one anew empties its folder."""
    return environment.with_name(f"{environment.name}.lock")


def _open_taken(path: Path, on_wait: Callable[[], None]) -> BinaryIO:
    waiting = False
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)  # uninstall may have removed it meanwhile
        file = path.open("ab")
        while not _take(file):
            if not waiting:
                waiting = True
                on_wait()
            time.sleep(_PAUSE_SECONDS)
        if _is_at(file, path):
            return file
        file.close()  # it was removed while this process waited for it


def _is_at(file: BinaryIO, path: Path) -> bool:
    if sys.platform == "win32":
        return True  # no file that is open can be removed
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


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

"""Work in a process of its own: what it loads leaves memory with it, and its death is an error, not ours."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

from conversions.errors import ConversionError

_T = TypeVar("_T")


class IsolatedProcess:
    """Worker processes that take calls."""

    def __init__(self, pool: ProcessPoolExecutor, purpose: str) -> None:
        self._pool = pool
        self._purpose = purpose

    def submit(self, function: Callable[..., _T], *arguments: Any) -> Pending[_T]:
        """Start a call of a module-level function there."""
        with _ctrl_c_held_back():
            return Pending(self._pool.submit(function, *arguments), self._purpose)

    def call(self, function: Callable[..., _T], *arguments: Any) -> _T:
        """Call a module-level function there and wait for its result.

        Raises:
            ConversionError: ``process.died``; the system ended the process, mostly for want of memory.
        """
        return self.submit(function, *arguments).result()


class Pending(Generic[_T]):
    """A call that was started."""

    def __init__(self, future: Future[_T], purpose: str) -> None:
        self._future = future
        self._purpose = purpose

    def result(self) -> _T:
        """Wait for the result; raises what the function raised, or ``process.died``."""
        try:
            return self._future.result()
        except BrokenProcessPool as error:
            raise ConversionError(
                "process.died",
                f"The process for {self._purpose} was ended by the system, most likely for want of memory.",
                "Close other programs and run the same command again.",
            ) from error


def _be_quiet() -> None:
    """Keep the libraries' own remarks and bars off the terminal; what matters comes back as a result."""
    # Ctrl-C reaches every process of a terminal; the parent is the one that reacts, and ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.disable(logging.WARNING)
    os.environ["TQDM_DISABLE"] = "1"


@contextmanager
def _ctrl_c_held_back() -> Iterator[None]:
    """Hold Ctrl-C back while processes start, which begin with it held back too and so start in silence."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def isolated_process(purpose: str, *, workers: int = 1) -> Iterator[IsolatedProcess]:
    """Start worker processes; they end with the block.

    Args:
        purpose: What they are for, as a person would say it: ``"tracing"``.
        workers: How many calls run side by side.
    """
    pool = ProcessPoolExecutor(
        max_workers=workers, mp_context=multiprocessing.get_context("spawn"), initializer=_be_quiet
    )
    try:
        yield IsolatedProcess(pool, purpose)
    except BaseException:
        # Nobody waits for what still runs there; it may take minutes.
        for process in list((pool._processes or {}).values()):
            process.kill()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)

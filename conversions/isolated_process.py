"""Run functions in a child process: memory is freed on exit, a crash becomes a ConversionError."""

from __future__ import annotations

import logging
import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

from conversions.errors import ConversionError

_T = TypeVar("_T")


class IsolatedProcess:
    """A pool of child processes."""

    def __init__(self, pool: ProcessPoolExecutor, purpose: str) -> None:
        self._pool = pool
        self._purpose = purpose

    def submit(self, function: Callable[..., _T], *arguments: Any) -> Pending[_T]:
        """Start a call of a module-level function in a child process."""
        return Pending(self._pool.submit(function, *arguments), self._purpose)

    def call(self, function: Callable[..., _T], *arguments: Any) -> _T:
        """Call a module-level function in a child process and wait for its result.

        Raises:
            ConversionError: ``process.died``: the system ended the process, usually because memory ran out.
        """
        return self.submit(function, *arguments).result()


class Pending(Generic[_T]):
    """The pending result of a call."""

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
                f"The process for {self._purpose} was ended by the system; most likely memory ran out.",
            ) from error


def _silence_libraries() -> None:
    """Silence log messages and progress bars of libraries; results are returned to the parent."""
    logging.disable(logging.WARNING)
    os.environ["TQDM_DISABLE"] = "1"


@contextmanager
def isolated_process(purpose: str, *, workers: int = 1) -> Iterator[IsolatedProcess]:
    """Start child processes; they end with the ``with`` block.

    Args:
        purpose: What they do, for error messages, for example ``"tracing"``.
        workers: Number of calls that run in parallel.
    """
    pool = ProcessPoolExecutor(
        max_workers=workers, mp_context=multiprocessing.get_context("spawn"), initializer=_silence_libraries
    )
    try:
        yield IsolatedProcess(pool, purpose)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)

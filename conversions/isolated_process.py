"""Run functions in a child process: memory is freed on exit, a crash becomes a ConversionError.

The child is ``python -c`` with a pipe on its standard input and output, not one of ``multiprocessing``: it
never imports the caller's script again, so a script needs no ``if __name__ == "__main__"`` guard, and how it
ended (exit status, signal) is known, not guessed.
"""

from __future__ import annotations

import os
import pickle
import queue
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from subprocess import PIPE, Popen
from typing import Any, BinaryIO, Generic, TypeVar

import psutil

from conversions.errors import ConversionError
from conversions.process_end import ProcessEnd, count_oom_kills, explain

_T = TypeVar("_T")

# The child takes the parent's search path first: whatever the parent can import, it can.
_BOOT = (
    "import pickle, sys; sys.path[:] = pickle.load(sys.stdin.buffer); "
    "from conversions.isolated_process import serve; serve()"
)
# How often a child is looked at: a machine fills a few GB of memory in a second.
_WATCH_SECONDS = 0.1
_WATCH_WITHOUT_LIMIT_SECONDS = 0.5
_GOODBYE_SECONDS = 10.0


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a call may take before its process is ended.

    Attributes:
        seconds: Time of one call; None for any.
        memory_bytes: Memory of the process, its children included; None for any.
    """

    seconds: float | None = None
    memory_bytes: int | None = None


class IsolatedProcess:
    """Child processes that take calls."""

    def __init__(self, purpose: str, workers: int, limits: Limits) -> None:
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="isolated")
        self._idle: queue.SimpleQueue[_Child | None] = queue.SimpleQueue()
        self._children: list[_Child] = []
        self._closing = False
        self._purpose, self._limits = purpose, limits
        for _ in range(workers):
            self._idle.put(None)

    def submit(self, function: Callable[..., _T], *arguments: Any) -> Pending[_T]:
        """Start a call of a module-level function there.

        Raises:
            ConversionError: ``process.not_importable``; the function is not one that a child can import.
        """
        if function.__module__ == "__main__" or "<" in function.__qualname__:
            raise ConversionError(
                "process.not_importable",
                f"{function.__qualname__} cannot run in a process of its own: a child process can only call "
                "functions that it can import from a module.",
                "Move the function out of the script into a module of its own.",
            )
        return Pending(self._threads.submit(self._run, function, arguments))

    def call(self, function: Callable[..., _T], *arguments: Any) -> _T:
        """Call a module-level function there and wait for its result.

        Raises:
            ConversionError: ``process.died``, ``process.time`` or ``process.memory``; or what the function
                raised.
        """
        return self.submit(function, *arguments).result()

    def _run(self, function: Callable[..., _T], arguments: tuple[Any, ...]) -> _T:
        child = self._idle.get()
        try:
            if child is None or not child.alive:
                if self._closing:
                    raise ConversionError("process.died", f"The process for {self._purpose} was not started.")
                child = _Child(self._purpose, self._limits)
                self._children.append(child)
            result: _T = child.call(function, arguments)
            return result
        finally:
            self._idle.put(child)

    def close(self, *, wait: bool) -> None:
        """End the children, after the calls that run when ``wait`` is set, else at once."""
        self._closing = True
        if not wait:
            self._threads.shutdown(wait=False, cancel_futures=True)
            for child in self._children:
                child.kill()
        self._threads.shutdown(wait=True, cancel_futures=True)
        for child in self._children:
            child.close()


class RemoteTracebackError(Exception):
    """The traceback of an exception in a child process, as its cause; for developers."""


class Pending(Generic[_T]):
    """A call that was started."""

    def __init__(self, future: Future[_T]) -> None:
        self._future = future

    def result(self) -> _T:
        """Wait for the result; raises what the function raised, or ``process.died``."""
        return self._future.result()


@contextmanager
def isolated_process(
    purpose: str, *, workers: int = 1, seconds: float | None = None, memory_bytes: int | None = None
) -> Iterator[IsolatedProcess]:
    """Start child processes, each with its first call; they end with the block.

    Args:
        purpose: What they are for, as a person would say it: ``"tracing"``.
        workers: How many calls run side by side.
        seconds: Time that one call may take; None for any.
        memory_bytes: Memory that one child may take; None for any.
    """
    processes = IsolatedProcess(purpose, workers, Limits(seconds=seconds, memory_bytes=memory_bytes))
    finished = False
    try:
        yield processes
        finished = True
    finally:
        # When the block is left by an error or Ctrl-C, nobody waits for calls that still run.
        processes.close(wait=finished)


class _Child:
    """One child process and the pipes to it."""

    def __init__(self, purpose: str, limits: Limits) -> None:
        self._purpose, self._limits = purpose, limits
        self._oom_kills = count_oom_kills()
        self._stderr: BinaryIO = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        try:
            # -P: a file pickle.py in the current folder is not taken for the library. -u: nothing that a
            # library prints is lost when the process dies.
            self._process = Popen(
                [sys.executable, "-P", "-u", "-c", _BOOT], stdin=PIPE, stdout=PIPE, stderr=self._stderr
            )
        except OSError as error:
            self._stderr.close()
            raise ConversionError(
                "process.not_started",
                f"A process for {purpose} cannot be started: {error.strerror or error}.",
                "Close other programs and run the same command again.",
            ) from error
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._to: BinaryIO = self._process.stdin  # type: ignore[assignment]
        self._from: BinaryIO = self._process.stdout  # type: ignore[assignment]
        self._ended = ProcessEnd(returncode=None)
        self.alive, self._ready = True, False
        try:
            self._send(sys.path)
        except OSError:
            self.alive = False

    def call(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        done = threading.Event()
        watch = threading.Thread(target=self._watch, args=(done,), daemon=True)
        try:
            if not self._ready:
                pickle.load(self._from)  # noqa: S301 - its greeting; Python's start is not counted
                self._ready = True
            watch.start()
            self._send((function, arguments))
            succeeded, value, trace = pickle.load(self._from)  # noqa: S301 - written by our own child
        except (EOFError, OSError, pickle.UnpicklingError) as error:
            self.alive = False
            done.set()
            if self._ready:
                watch.join()
            raise self._death() from error
        finally:
            done.set()
        if succeeded:
            return value
        raise value from RemoteTracebackError(trace)

    def _send(self, value: Any) -> None:
        pickle.dump(value, self._to, protocol=5)
        self._to.flush()

    def _watch(self, done: threading.Event) -> None:
        """Look at the child until a call is done; end it when it goes beyond its limits."""
        limits = self._limits
        pause = _WATCH_WITHOUT_LIMIT_SECONDS if limits.memory_bytes is None else _WATCH_SECONDS
        began = time.monotonic()
        while not done.wait(pause):
            used = _memory_of(self._process.pid)
            free = int(psutil.virtual_memory().available)
            self._ended = replace(
                self._ended,
                used_bytes=max(used, self._ended.used_bytes or 0),
                free_bytes=min(free, free if self._ended.free_bytes is None else self._ended.free_bytes),
            )
            if limits.memory_bytes is not None and used > limits.memory_bytes:
                self._ended = replace(self._ended, memory_limit_bytes=limits.memory_bytes)
            elif limits.seconds is not None and time.monotonic() - began > limits.seconds:
                self._ended = replace(self._ended, time_limit_seconds=limits.seconds)
            else:
                continue
            self.kill()
            return

    def _death(self) -> ConversionError:
        self.kill(after_seconds=_GOODBYE_SECONDS)
        self._stderr.seek(0)
        ended = replace(
            self._ended,
            returncode=self._process.returncode,
            oom_kills=count_oom_kills() - self._oom_kills,
            stderr=self._stderr.read()[-4000:].decode("utf-8", "replace"),
        )
        return explain(self._purpose, ended)

    def kill(self, *, after_seconds: float = 0.0) -> None:
        """End the process, and those that it started, if it does not end by itself in time."""
        try:
            self._process.wait(after_seconds)
        except Exception:  # noqa: BLE001 - whatever waiting says, the process has to go
            for child in _tree(self._process.pid):
                try:
                    child.kill()
                except psutil.Error:
                    continue
            self._process.kill()
            self._process.wait()

    def close(self) -> None:
        """Tell the process to end, and end it when it does not."""
        with suppress(OSError):
            self._to.close()  # the child ends when its input does
        self.kill(after_seconds=_GOODBYE_SECONDS)
        self._from.close()
        self._stderr.close()


def _tree(process_id: int) -> list[psutil.Process]:
    try:
        process = psutil.Process(process_id)
        return [process, *process.children(recursive=True)]
    except psutil.Error:
        return []


def _memory_of(process_id: int) -> int:
    """Return the memory of a process; on Windows, python.exe of an environment is only its parent."""
    used = 0
    with suppress(psutil.Error):
        processes = _tree(process_id) if sys.platform == "win32" else [psutil.Process(process_id)]
        used = sum(process.memory_info().rss for process in processes)
    return used


def serve() -> None:
    """Answer calls until the parent is gone: the body of the child process."""
    import logging
    import signal

    # Ctrl-C reaches every process of a console; the parent is the one that reacts.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Keep the libraries' own remarks and bars off the terminal; what matters comes back as a result.
    logging.disable(logging.WARNING)
    os.environ["TQDM_DISABLE"] = "1"
    # What libraries print must not get between the answers.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    calls: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_read_calls, args=(sys.stdin.buffer, calls), daemon=True).start()
    answer = pickle.dumps("ready")
    while True:
        try:
            answers.write(answer)
            answers.flush()
        except OSError:
            os._exit(1)
        answer = _answer(calls.get())


def _read_calls(source: BinaryIO, calls: queue.SimpleQueue[Any]) -> None:
    """Read calls; when the parent is gone, whatever is being computed is of no use to anybody."""
    while True:
        try:
            calls.put(pickle.load(source))  # noqa: S301 - written by our own parent
        except EOFError:
            os._exit(0)
        except Exception as error:  # noqa: BLE001 - a call that cannot be read is answered with why
            calls.put(error)


def _answer(call: Any) -> bytes:
    try:
        if isinstance(call, Exception):
            raise call
        function, arguments = call
        return pickle.dumps((True, function(*arguments), ""), protocol=5)
    except Exception as error:  # noqa: BLE001 - the parent raises it
        return _pickled_error(error)


def _pickled_error(error: Exception) -> bytes:
    """Pickle an exception; one that does not survive the way becomes a RuntimeError with its text."""
    trace = "".join(traceback.format_exception(error))
    try:
        packed = pickle.dumps((False, error, trace), protocol=5)
        pickle.loads(packed)  # noqa: S301 - our own
    except Exception:  # noqa: BLE001 - exceptions fail to pickle in many ways
        packed = pickle.dumps((False, RuntimeError(f"{type(error).__name__}: {error}"), trace), protocol=5)
    return packed

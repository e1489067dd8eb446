"""Compute a hash on another thread, so that the caller does not wait for it."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

# Limit on bytes that are queued but not yet hashed, to bound memory.
_MOST_WAITING_BYTES = 64 << 20


class Hash(Protocol):
    """Interface of ``hashlib.sha256()``."""

    def update(self, data: bytes | bytearray | memoryview, /) -> None:
        """Add bytes."""
        ...

    def hexdigest(self) -> str:
        """Return the hash of all bytes so far, in hexadecimal digits."""
        ...


class Digest:
    """A hash that is updated on another thread.

    Args:
        running: The hash so far.
        thread: Executor that computes it; several hashes may share one thread.
    """

    def __init__(self, running: Hash, thread: ThreadPoolExecutor) -> None:
        self._running = running
        self._thread = thread
        self._waiting: deque[tuple[int, Future[None]]] = deque()
        self._waiting_bytes = 0

    def update(self, data: bytes | bytearray | memoryview) -> None:
        """Queue more bytes, which must not change afterwards; waits while the queue is full."""
        self._waiting.append((len(data), self._thread.submit(self._running.update, data)))
        self._waiting_bytes += len(data)
        self._wait_until(_MOST_WAITING_BYTES)

    def hexdigest(self) -> str:
        """Wait for all bytes and return their hash in hexadecimal digits."""
        self._wait_until(0)
        return self._running.hexdigest()

    def _wait_until(self, most_bytes: int) -> None:
        while self._waiting_bytes > most_bytes:
            size_bytes, hashed = self._waiting.popleft()
            hashed.result()
            self._waiting_bytes -= size_bytes

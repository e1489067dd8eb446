"""A hash that is fed in order on a thread of its own, so that whoever feeds it can go on."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

# What may be handed over and not yet hashed; more would only hold memory.
_MOST_WAITING_BYTES = 64 << 20


class Hash(Protocol):
    """What ``hashlib.sha256()`` returns."""

    def update(self, data: bytes | bytearray | memoryview, /) -> None:
        """Take in more bytes."""
        ...

    def hexdigest(self) -> str:
        """Return the hash of all bytes so far, in hexadecimal digits."""
        ...


class Digest:
    """A running hash.

    Args:
        running: The hash so far.
        thread: Where it is computed; several hashes may share a thread.
    """

    def __init__(self, running: Hash, thread: ThreadPoolExecutor) -> None:
        self._running = running
        self._thread = thread
        self._waiting: deque[tuple[int, Future[None]]] = deque()
        self._waiting_bytes = 0

    def update(self, data: bytes | bytearray | memoryview) -> None:
        """Take in more bytes, which nobody may change after; waits when too much is still to be hashed."""
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

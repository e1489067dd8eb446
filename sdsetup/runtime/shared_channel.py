"""Send messages to another process: arrays through shared memory, the rest through a pipe."""

from __future__ import annotations

import contextlib
import pickle
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.shared_memory import SharedMemory
from typing import Any

# Enough for the arrays of most steps, so that a block is seldom replaced by a larger one.
_SMALLEST_BLOCK = 4 * 1024**2


@dataclass(kw_only=True)
class SharedChannel:
    """One end of a two-way connection between two processes.

    A pipe copies an array four times, and on Windows in small pieces: for the arrays of a step of Stable
    Diffusion 1.x, 0.6 MB, that took 6 ms under Wine, and takes 0.7 here. Pickle leaves the arrays' bytes out
    of a message (protocol 5, "out-of-band data", PEP 574); they are copied into a block of shared memory that
    the other end reads.

    Each end waits for an answer before it sends arrays again, so one block for each direction is enough.

    Attributes:
        connection: An end of ``multiprocessing.Pipe``.
    """

    connection: Connection
    _sent: SharedMemory | None = field(default=None, init=False)
    _received: SharedMemory | None = field(default=None, init=False)

    def send(self, message: Any) -> None:
        """Send anything that can be pickled.

        Raises:
            OSError: The other end is closed, or there is no shared memory left.
        """
        buffers: list[pickle.PickleBuffer] = []
        content = pickle.dumps(message, protocol=5, buffer_callback=buffers.append)
        views = [buffer.raw() for buffer in buffers]
        sizes = [view.nbytes for view in views]
        name = ""
        if sum(sizes):
            block = self._block(sum(sizes))
            arrays, name, place = _bytes_of(block), block.name, 0
            for view in views:
                arrays[place : place + view.nbytes] = view
                place += view.nbytes
        self.connection.send((content, name, sizes))

    def recv(self) -> Any:
        """Wait for a message; its arrays are the receiver's own.

        Raises:
            EOFError: The other end is closed.
            OSError: The connection is broken.
        """
        content, name, sizes = self.connection.recv()
        arrays = _bytes_of(self._block_of_the_other(name)) if name else memoryview(b"")
        parts, place = [], 0
        for size in sizes:
            parts.append(bytearray(arrays[place : place + size]))
            place += size
        return pickle.loads(content, buffers=parts)  # noqa: S301 - from a process of our own

    def close(self) -> None:
        """Close this end and give all shared memory back; for the process that started the other one."""
        self.connection.close()
        for block in (self._sent, self._received):
            _close(block, unlink=True)
        self._sent = self._received = None

    def _block(self, size: int) -> SharedMemory:
        if self._sent is None or self._sent.size < size:
            _close(self._sent, unlink=True)
            self._sent = None
            self._sent = SharedMemory(create=True, size=max(size, _SMALLEST_BLOCK))
        return self._sent

    def _block_of_the_other(self, name: str) -> SharedMemory:
        if self._received is None or self._received.name != name:
            _close(self._received)
            self._received = None
            try:
                self._received = SharedMemory(name)
            except FileNotFoundError as error:
                # Windows frees a block with the last process that has it.
                raise EOFError("the other process has ended") from error
        return self._received


def _bytes_of(block: SharedMemory) -> memoryview:
    assert block.buf is not None
    return block.buf


def _close(block: SharedMemory | None, *, unlink: bool = False) -> None:
    if block is None:
        return
    block.close()
    if unlink:
        with contextlib.suppress(FileNotFoundError):
            block.unlink()

"""Read a checkpoint's tensors from the Hub by HTTP range requests, without storing it."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import Event, Lock
from typing import Self

import httpx2

from conversions.checkpoint.storage import Reader
from conversions.events import Listener, ignore
from sdsetup.errors import SetupError
from sdsetup.hub import cache
from sdsetup.hub.access import translate_errors
from sdsetup.hub.model_ref import HubModel, RemoteFile
from sdsetup.hub.session import Retries
from sdsetup.hub.snapshot import Snapshot
from sdsetup.hub.streams import Source, StartOver

# A request costs a round trip, so it fetches much; a conversion reads a file from start to end, so what
# follows is fetched ahead. Kept at most: 16 x 8 MiB. Planning reads only the tables at the start of files.
_HEAD_BYTES = 2**20
_BLOCK_BYTES = 8 * 2**20
_FETCHED_AHEAD = 6
_KEPT = 16
_AT_ONCE = 4


class HubStorage:
    """The files of a model on the Hub, read remotely.

    Args:
        model: The repository at its commit.
        files: Files to expose; others are hidden.
        listener: Receives notices of waits and retries.
    """

    def __init__(self, model: HubModel, files: Iterable[RemoteFile], listener: Listener = ignore) -> None:
        self._model = model
        self._files = {file.name: file for file in files}
        self._blocks = _Blocks(model, listener)
        self._small: dict[str, bytes] = {}

    @property
    def label(self) -> str:
        """Name of the repository."""
        return self._model.repo_id

    def names(self) -> Sequence[str]:
        """Return the names of all files, sorted."""
        return sorted(self._files)

    def size_bytes(self, name: str) -> int:
        """Return the size of a file."""
        return self._files[name].size_bytes or 0

    def version(self, name: str) -> str:
        """Return the hash of the file's content."""
        return self._files[name].etag

    def known_sha256(self, name: str) -> str:
        """Return the file's hash from the Hub, or an empty string."""
        return self._files[name].sha256 or ""

    def path_of(self, name: str) -> Path | None:  # noqa: ARG002 - a cached file may be evicted at any time
        """Return None: the file is remote."""
        return None

    def read(self, name: str) -> bytes:
        """Return the content of a small file.

        Raises:
            SetupError: ``hub.corrupt``, or one of ``hub.access.translate_errors``.
        """
        if name not in self._small:
            file = self._files[name]
            content = bytearray(self.size_bytes(name))
            slot = cache.slot(self._model, file)
            if slot.is_filled(file):
                content[:] = slot.pointer.read_bytes()
            else:
                self._blocks.read_into(file, memoryview(content), 0)
            digest = hashlib.sha1(f"blob {len(content)}\0".encode() + content, usedforsecurity=False)
            if file.etag not in (hashlib.sha256(content).hexdigest(), digest.hexdigest()):
                raise _corrupt(name)
            self._small[name] = bytes(content)
        return self._small[name]

    def open(self, name: str) -> Reader:
        """Open a large file for random access; from the cache, if it is complete there."""
        file = self._files[name]
        if cache.slot(self._model, file).is_filled(file):
            return Snapshot(self._model).open(name)
        return _Reader(file, self._blocks)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Cancel pending requests."""
        self._blocks.close()


class _Reader:
    """Random access to one file; readers of a file share fetched blocks."""

    def __init__(self, file: RemoteFile, blocks: _Blocks) -> None:
        self._file = file
        self._blocks = blocks

    def read_into(self, buffer: memoryview, offset: int) -> None:
        """Fill ``buffer`` with the bytes that start at ``offset``.

        Raises:
            SetupError: One of the codes of ``hub.access.translate_errors``.
        """
        self._blocks.read_into(self._file, buffer, offset)

    def close(self) -> None:
        """Do nothing: readers share all resources."""


class _Blocks:
    """Thread-safe LRU cache of file blocks, with read-ahead."""

    def __init__(self, model: HubModel, listener: Listener) -> None:
        self._model = model
        self._listener = listener
        self._source = Source(model, listener, allow_xet=False)
        self._stopped = Event()
        self._pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="range")
        self._known: OrderedDict[tuple[str, int], Future[bytes]] = OrderedDict()
        self._lock = Lock()

    def read_into(self, file: RemoteFile, buffer: memoryview, offset: int) -> None:
        done = 0
        while done < len(buffer):
            index = _block_at(offset + done)
            inside = offset + done - _block_start(index)
            with translate_errors(self._model.repo_id, self._model.revision):
                block = self._block(file, index)
            part = block[inside : inside + len(buffer) - done]
            if not part:
                raise _corrupt(file.name)
            buffer[done : done + len(part)] = part
            done += len(part)

    def close(self) -> None:
        self._stopped.set()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _block(self, file: RemoteFile, index: int) -> bytes:
        with self._lock:
            wanted = self._ask(file, index)
            for following in range(index + 1, index + 1 + _FETCHED_AHEAD) if index else ():
                if _block_start(following) < (file.size_bytes or 0):
                    self._ask(file, following)
            self._known.move_to_end((file.name, index))
            while len(self._known) > _KEPT:
                self._known.popitem(last=False)[1].cancel()
        return wanted.result()

    def _ask(self, file: RemoteFile, index: int) -> Future[bytes]:
        key = (file.name, index)
        if key not in self._known:
            self._known[key] = self._pool.submit(self._fetch, file, index)
        return self._known[key]

    def _fetch(self, file: RemoteFile, index: int) -> bytes:
        position = _block_start(index)
        end = min(_block_start(index + 1), file.size_bytes or 0)
        content = bytearray()
        retries = Retries(self._listener, self._stopped)
        while position + len(content) < end:
            try:
                with self._source.open(file, position + len(content), end) as pieces:
                    for piece in pieces:
                        content += piece
                        retries.progressed()
                        if position + len(content) >= end:
                            break  # a server without range support would send the rest of the file
                if position + len(content) < end:
                    raise httpx2.RemoteProtocolError("the range ended early")
            except StartOver as error:
                raise SetupError(
                    "hub.no-ranges",
                    f"The server does not support range requests for {file.name}.",
                    "Run the same command without --no-cache.",
                ) from error
            except Exception as error:  # noqa: BLE001 - wait_after raises what is not to be retried
                retries.wait_after(error)
        return bytes(content[: end - position])


def _block_at(position: int) -> int:
    """Return the block that contains a byte; block 0 is the head of the file."""
    return 0 if position < _HEAD_BYTES else 1 + (position - _HEAD_BYTES) // _BLOCK_BYTES


def _block_start(index: int) -> int:
    return 0 if index == 0 else _HEAD_BYTES + (index - 1) * _BLOCK_BYTES


def _corrupt(name: str) -> SetupError:
    return SetupError(
        "hub.corrupt",
        f"{name} has content that does not match its hash.",
        "Something in the network alters files: try another network, or unset HF_ENDPOINT.",
    )

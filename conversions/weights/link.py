"""Let a package use a checkpoint's own weight files: link them instead of copying what they hold."""

from __future__ import annotations

import errno
import hashlib
import os
import sys
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Self

import numpy as np
import onnx_ir as ir

from conversions.checkpoint.storage import Storage
from conversions.weights.binding import STORED_TYPES, as_stored
from conversions.weights.expression import Expression, all_stored
from conversions.weights.not_finite import infinite

# Linux: share the blocks of one file with another, copied when either is written (Btrfs, XFS).
# Source: ioctl_ficlonerange(2), linux/fs.h.
_FICLONE = 0x40049409

_HASHED_AT_ONCE_BYTES = 4 << 20
_HASHED_TOGETHER = 2


def linkable_files(
    storage: Storage, weights: Iterable[Expression], dtypes: Collection[ir.DataType]
) -> set[str]:
    """Return the files of a checkpoint that mostly hold weights as a package wants them.

    Rules:
        1. A file counts that lies on this machine, and of whose bytes that are read at least half are used
           as they are, in an element type of the package.
        2. All its tensors begin where their elements are aligned, as the format's own writers have it.
        3. Of files of one name in several folders, only the first counts: linked, they would be one file.

    Args:
        storage: The checkpoint's files.
        weights: What the package needs of them.
        dtypes: Element types of weights in the package.
    """
    read: dict[str, int] = {}
    used: dict[str, int] = {}
    unfit: set[str] = set()
    for weight in weights:
        for tensor in weight.stored:
            read[tensor.file] = read.get(tensor.file, 0) + tensor.size_bytes
        if (kept := as_stored(weight, dtypes)) is not None:
            used[kept.file] = used.get(kept.file, 0) + kept.size_bytes
            if kept.offset % STORED_TYPES[kept.dtype].itemsize:
                unfit.add(kept.file)
    fit = {
        file
        for file, size_bytes in used.items()
        if 2 * size_bytes >= read[file]
        and file not in unfit
        and file.endswith(".safetensors")
        and storage.path_of(file) is not None
    }
    by_name = {file.rpartition("/")[2]: file for file in sorted(fit, reverse=True)}
    return set(by_name.values())


def link_file(source: Path, target: Path) -> bool:
    """Make ``target`` a file with the content of ``source`` that takes no space of its own.

    Shared blocks come first, since a change of the checkpoint then leaves the package as it is; then a hard
    link. Neither can be had across volumes, on some file systems, and of other people's files.

    Args:
        source: The file; links to it are followed.
        target: Does not exist yet.

    Returns:
        Whether it was made.
    """
    source = source.resolve()
    if _share_blocks(source, target):
        return True
    # Windows refuses to delete a file that is marked read-only, by whatever name.
    if os.name == "nt" and not os.access(source, os.W_OK):
        return False
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ENAMETOOLONG):
            raise
        return False
    return True


def _share_blocks(source: Path, target: Path) -> bool:
    if sys.platform != "linux":
        return False
    import fcntl

    try:
        with source.open("rb") as read, target.open("xb") as written:
            fcntl.ioctl(written.fileno(), _FICLONE, read.fileno())
    except OSError:
        target.unlink(missing_ok=True)
        return False
    return True


@dataclass(frozen=True, kw_only=True)
class HashedFile:
    """What was found when a file was read whole.

    Attributes:
        sha256: Its hash.
        finite: Whether no weight of it is NaN or infinite.
    """

    sha256: str
    finite: bool


class FileHashes:
    """Hashes of a checkpoint's files, computed on threads of their own while other work runs.

    Args:
        storage: The checkpoint's files, which lie on this machine.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._pool = ThreadPoolExecutor(_HASHED_TOGETHER, thread_name_prefix="hash")
        self._found: dict[str, Future[HashedFile]] = {}
        self._done: dict[str, int] = {}
        self._stopped = Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._pool.shutdown(cancel_futures=True)

    def begin(self, file: str, weights: Iterable[Expression]) -> None:
        """Begin to hash a file whose hash is not known.

        Args:
            file: Its name.
            weights: Weights that lie in it; they are looked at for NaN and infinity.
        """
        if not self._storage.known_sha256(file) and file not in self._found:
            tensors = [tensor for tensor in all_stored(weights) if tensor.file == file]
            places = [
                (tensor.offset, tensor.offset + tensor.size_bytes, int(STORED_TYPES[tensor.dtype].itemsize))
                for tensor in tensors
                if tensor.dtype in STORED_TYPES
            ]
            self._found[file] = self._pool.submit(self._hash, file, places)

    def wait(self, file: str, advance: Callable[[int], None]) -> HashedFile:
        """Return the hash of a file.

        Args:
            file: Its name; what was not begun has a known hash.
            advance: Called with the number of bytes that were hashed since the last call.
        """
        if file not in self._found:
            return HashedFile(sha256=self._storage.known_sha256(file), finite=True)
        told = 0
        while True:
            try:
                result = self._found[file].result(timeout=0.2)
            except TimeoutError:
                if self._found[file].done():
                    raise
            else:
                advance(self._storage.size_bytes(file) - told)
                return result
            done = self._done.get(file, 0)
            advance(done - told)
            told = done

    def _hash(self, file: str, places: list[tuple[int, int, int]]) -> HashedFile:
        path = self._storage.path_of(file)
        assert path is not None
        digest = hashlib.sha256()
        finite = True
        buffer = bytearray(_HASHED_AT_ONCE_BYTES)
        begin, place = 0, 0
        with path.open("rb", buffering=0) as opened:
            while count := opened.readinto(buffer):
                if self._stopped.is_set():
                    raise InterruptedError
                digest.update(memoryview(buffer)[:count])
                while place < len(places) and places[place][1] <= begin:
                    place += 1
                for first, last, width in places[place:]:
                    if first >= begin + count:
                        break
                    finite = finite and _all_finite(buffer, first - begin, min(last - begin, count), width)
                begin += count
                self._done[file] = begin
        return HashedFile(sha256=digest.hexdigest(), finite=finite)


def _all_finite(buffer: bytearray, first: int, last: int, width: int) -> bool:
    """Say whether the elements in a range of a buffer are finite; being aligned, none is cut by its ends."""
    first = first if first >= 0 else first % width
    count = (last - first) // width
    kind = np.float16 if width == 2 else np.float32
    return count <= 0 or infinite(np.frombuffer(buffer, kind, count, first)) == 0.0

"""Stream a checkpoint's tensors into external data files: read in order, cast, hash and write."""

from __future__ import annotations

import hashlib
import math
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from conversions.checkpoint.element_types import Numbers, element_type
from conversions.checkpoint.safetensors_header import StoredTensor
from conversions.checkpoint.storage import Reader, Storage
from conversions.errors import ConversionError
from conversions.weights.async_hash import Digest
from conversions.weights.binding import Binding, place_in_checkpoint
from conversions.weights.not_finite import infinite
from conversions.weights.stream_progress import SavedProgress, StreamProgress

# The largest finite float16 is 65504; what rounds to nearest beyond the halfway point becomes infinite.
# Source: IEEE 754-2019, binary16.
_FIRST_INFINITE_FP16 = 65520.0

# A piece fits the processor's cache; the budget bounds bytes that are read but not yet written.
_PIECE_BYTES = 8 << 20
_BUDGET_BYTES = 192 << 20
# More than four gain nothing beside the two threads that hash.
_WORKERS = min(4, max(2, os.cpu_count() or 2))


@dataclass(frozen=True, kw_only=True)
class Overflow:
    """A tensor that float16 cannot hold, or that holds NaN or infinity itself, whatever its type.

    Attributes:
        initializer: Its name in the graph.
        largest: Its largest magnitude; nan or infinity when it holds a NaN.
    """

    initializer: str
    largest: float


@dataclass(frozen=True, kw_only=True)
class Streamed:
    """Result of a stream.

    Attributes:
        sha256: Hash of each external data file, by submodel.
        sources: Hash of each file of the checkpoint that was read, by name.
        overflows: Tensors that float16 cannot hold, or that hold NaN or infinity, by submodel.
    """

    sha256: Mapping[str, str]
    sources: Mapping[str, str]
    overflows: Mapping[str, tuple[Overflow, ...]]


@dataclass(frozen=True, kw_only=True)
class _Piece:
    """A contiguous range of one weight's elements: ``first`` and ``count``."""

    submodel: str
    binding: Binding
    first: int
    count: int

    @property
    def identity(self) -> tuple[object, ...]:
        return self.submodel, self.binding, self.first, self.count

    @property
    def source_bytes(self) -> int:
        """Bytes of the checkpoint that it accounts for, for progress and the memory budget."""
        source = self.binding.source
        before, after = (
            source.stored_bytes * element // source.size for element in (self.first, self.first + self.count)
        )
        return after - before


@dataclass(frozen=True, kw_only=True)
class _Range:
    """Bytes that were read from a file."""

    file: str
    offset: int
    raw: bytearray


@dataclass(frozen=True, kw_only=True)
class _Loaded:
    """A processed piece: what was read, the bytes to write, and the largest magnitude if it was narrowed."""

    ranges: list[_Range]
    data: memoryview
    largest: float


def stream(
    bindings: Mapping[str, Sequence[Binding]],
    storage: Storage,
    paths: Mapping[str, Path],
    progress_path: Path,
    advance: Callable[[int], None],
) -> Streamed:
    """Write the external data of all submodels of a component in one pass over its files.

    Two to four threads read and cast, two hash the input and the output, the calling thread writes in
    order; at most a fixed number of bytes is in flight, whatever the model's size.

    Args:
        bindings: Bindings by submodel.
        storage: The checkpoint's files.
        paths: File to write, by submodel; a partly written file is resumed.
        progress_path: Progress file, from which an interrupted stream resumes.
        advance: Called with the number of source bytes of each piece.

    Returns:
        Hashes, and the tensors that do not fit float16 (they are written as infinities; the caller
        decides whether to keep the file).

    Raises:
        ConversionError: A file is truncated, or its hash differs from the published one.
        OSError: Writing failed.
    """
    pieces = sorted(
        (
            piece
            for submodel, items in bindings.items()
            for binding in items
            for piece in _split(submodel, binding)
        ),
        # Several weights may be made of one tensor: each is written whole before the next.
        key=lambda piece: (
            *place_in_checkpoint(piece.binding.source),
            piece.submodel,
            piece.binding.offset,
            piece.first,
        ),
    )
    progress = StreamProgress(progress_path, [piece.identity for piece in pieces])
    saved = progress.load(paths)
    overflows: dict[str, dict[str, float]] = {
        submodel: dict(saved.overflows[submodel]) if saved else {} for submodel in bindings
    }
    done = saved.pieces if saved else 0
    read_before = {tensor.file for piece in pieces[:done] for tensor in piece.binding.source.stored}
    advance(sum(piece.source_bytes for piece in pieces[:done]))
    with ExitStack() as stack:
        readers = _ReaderPool(storage)
        stack.callback(readers.close)  # after the pool, whose threads return their readers
        reading, writing = (
            stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix=name))
            for name in ("read", "written")
        )
        pool = stack.enter_context(ThreadPoolExecutor(_WORKERS, thread_name_prefix="cast"))
        sinks = {
            name: stack.enter_context(_HashedWriter(path, saved, name, writing))
            for name, path in paths.items()
        }
        # A file that an earlier run read in part cannot be hashed without reading that part again: it
        # keeps the hash that it was published under, if there is one.
        sources = {file: storage.known_sha256(file) for file in read_before if storage.known_sha256(file)}
        origins = {file: _SourceHash(storage, file, readers, reading) for file in read_before - set(sources)}
        for piece, loaded in _in_order(pool, pieces[done:], readers):
            binding = piece.binding
            for found in loaded.ranges:
                if found.file in sources:
                    continue
                if storage.path_of(found.file) and storage.known_sha256(found.file):
                    sources[found.file] = storage.known_sha256(found.file)
                    continue
                if found.file not in origins:
                    origins[found.file] = _SourceHash(storage, found.file, readers, reading)
                origins[found.file].update(found.raw, found.offset)
            limit = _FIRST_INFINITE_FP16 if binding.dtype.name == "FLOAT16" else math.inf
            if not loaded.largest < limit:
                known = overflows[piece.submodel].get(binding.initializer, 0.0)
                overflows[piece.submodel][binding.initializer] = (
                    loaded.largest if math.isnan(loaded.largest) else max(known, loaded.largest)
                )
            if piece.first == 0:
                sinks[piece.submodel].pad_to(binding.offset)
            sinks[piece.submodel].write(loaded.data)
            advance(piece.source_bytes)
            done += 1
            progress.save(
                done,
                {name: sink.size_bytes for name, sink in sinks.items()},
                {name: sink.sha256 for name, sink in sinks.items()},
                overflows,
            )
        for file, origin in origins.items():
            sources[file] = origin.hexdigest()
            if storage.known_sha256(file) not in ("", sources[file]):
                progress.clear()
                raise _hash_mismatch(storage, file)
        return Streamed(
            sha256={name: sink.sha256.hexdigest() for name, sink in sinks.items()},
            sources=sources,
            overflows={
                submodel: tuple(Overflow(initializer=name, largest=size) for name, size in found.items())
                for submodel, found in overflows.items()
                if found
            },
        )


def _hash_mismatch(storage: Storage, file: str) -> ConversionError:
    return ConversionError(
        "checkpoint.corrupt",
        f"{storage.label}/{file} is not the file that was published: its hash differs.",
        "Delete this file, or the model's folder in the Hub's cache.",
    )


def _split(submodel: str, binding: Binding) -> Iterator[_Piece]:
    """Split a weight into pieces of whole granules."""
    total, granule = binding.source.size, binding.source.granule
    width = max(1, binding.source.stored_bytes // max(1, total))
    step = max(1, _PIECE_BYTES // width // granule) * granule
    for first in range(0, total, step):
        yield _Piece(submodel=submodel, binding=binding, first=first, count=min(step, total - first))


def _in_order(
    pool: ThreadPoolExecutor, pieces: Sequence[_Piece], readers: _ReaderPool
) -> Iterator[tuple[_Piece, _Loaded]]:
    """Load pieces in parallel and yield them in order, within the byte budget."""
    waiting: deque[tuple[_Piece, Future[_Loaded]]] = deque()
    on_the_way = 0
    for piece in pieces:
        while waiting and on_the_way + piece.source_bytes > _BUDGET_BYTES:
            first, future = waiting.popleft()
            yield first, future.result()
            on_the_way -= first.source_bytes
        waiting.append((piece, pool.submit(_load, piece, readers)))
        on_the_way += piece.source_bytes
    while waiting:
        first, future = waiting.popleft()
        yield first, future.result()


def _load(piece: _Piece, readers: _ReaderPool) -> _Loaded:
    ranges: list[_Range] = []

    def read(tensor: StoredTensor, first: int, count: int) -> Numbers:
        found = element_type(tensor)
        raw = bytearray(found.bytes_of(count))
        offset = tensor.offset + found.bytes_of(first)
        with readers.borrow(tensor.file) as reader:
            reader.read_into(memoryview(raw), offset)
        ranges.append(_Range(file=tensor.file, offset=offset, raw=raw))
        return found.decode(raw)

    numbers = piece.binding.source.evaluate(piece.first, piece.count, read)
    narrowed, largest = _narrow(numbers, piece.binding.dtype.numpy())
    return _Loaded(
        ranges=ranges,
        data=memoryview(narrowed.reshape(-1).view(np.uint8)),  # type: ignore[arg-type]
        largest=largest,
    )


def _narrow(numbers: Numbers, wanted: np.dtype[np.generic]) -> tuple[Numbers, float]:
    if numbers.dtype == wanted:
        return numbers, infinite(numbers)
    if wanted == np.float16 and numbers.size:
        largest = max(abs(float(numbers.min())), abs(float(numbers.max())))
    else:
        largest = infinite(numbers)
    with np.errstate(over="ignore", invalid="ignore"):
        return numbers.astype(wanted), largest


class _ReaderPool:
    """A pool of open readers; each is used by one thread at a time."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._free: deque[tuple[str, Reader]] = deque()

    def borrow(self, file: str) -> _BorrowedReader:
        for _ in range(len(self._free)):
            try:
                name, reader = self._free.popleft()
            except IndexError:
                break
            if name == file:
                return _BorrowedReader(self._free, file, reader)
            self._free.append((name, reader))
        return _BorrowedReader(self._free, file, self._storage.open(file))

    def close(self) -> None:
        while self._free:
            self._free.popleft()[1].close()


class _BorrowedReader:
    def __init__(self, free: deque[tuple[str, Reader]], file: str, reader: Reader) -> None:
        self._free, self._file, self._reader = free, file, reader

    def __enter__(self) -> Reader:
        return self._reader

    def __exit__(self, *_: object) -> None:
        self._free.append((self._file, self._reader))


class _SourceHash:
    """Hash of a checkpoint file, updated while its tensors are read; gaps between them are read too."""

    def __init__(self, storage: Storage, file: str, readers: _ReaderPool, thread: ThreadPoolExecutor) -> None:
        self._file, self._readers, self._size = file, readers, storage.size_bytes(file)
        self._sha256 = Digest(hashlib.sha256(), thread)
        self._end = 0

    def update(self, raw: bytearray, offset: int) -> None:
        self._read_to(offset)
        if offset == self._end:
            self._sha256.update(raw)
            self._end += len(raw)

    def hexdigest(self) -> str:
        self._read_to(self._size)
        return self._sha256.hexdigest()

    def _read_to(self, offset: int) -> None:
        with self._readers.borrow(self._file) as reader:
            while self._end < offset:
                gap = bytearray(min(_PIECE_BYTES, offset - self._end))
                reader.read_into(memoryview(gap), self._end)
                self._sha256.update(gap)
                self._end += len(gap)


class _HashedWriter:
    """Write a file sequentially, from its start or from where an earlier run stopped, and hash it."""

    def __init__(
        self, path: Path, saved: SavedProgress | None, submodel: str, thread: ThreadPoolExecutor
    ) -> None:
        self.sha256 = Digest(saved.hashes[submodel] if saved else hashlib.sha256(), thread)
        self.size_bytes = saved.sizes[submodel] if saved else 0
        self._path = path

    def __enter__(self) -> _HashedWriter:
        self._file: BinaryIO = self._path.open("ab", buffering=0)
        self._file.truncate(self.size_bytes)
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def pad_to(self, offset: int) -> None:
        if offset > self.size_bytes:
            self.write(memoryview(bytes(offset - self.size_bytes)))

    def write(self, data: memoryview) -> None:
        self.sha256.update(data)
        done = 0
        while done < len(data):
            done += self._file.write(data[done:])
        self.size_bytes += len(data)

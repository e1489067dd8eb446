"""NaN and infinity among a checkpoint's own weights: whether, and at a second look where, and how many."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from conversions.checkpoint.element_types import Numbers
from conversions.checkpoint.safetensors_header import StoredTensor
from conversions.checkpoint.storage import Reader, Storage
from conversions.errors import ConversionError

_PIECE_BYTES = 8 << 20
_SHOWN = 5

# How the types with infinities are laid out: an unsigned type of the same width, the bits of the exponent,
# and those of the fraction. Source: IEEE 754-2019; bfloat16 is the upper half of binary32.
_LAYOUTS: Mapping[str, tuple[type[np.unsignedinteger], int, int]] = {
    "F16": (np.uint16, 0x7C00, 0x03FF),
    "BF16": (np.uint16, 0x7F80, 0x007F),
    "F32": (np.uint32, 0x7F800000, 0x007FFFFF),
    "F64": (np.uint64, 0x7FF0000000000000, 0x000FFFFFFFFFFFFF),
}

# For each width the signed and the unsigned type, and the bits of +infinity and -infinity: NaN of either sign
# lies above. Source: IEEE 754-2019.
_BITS = {
    2: (np.int16, np.uint16, 0x7C00, 0xFC00),
    4: (np.int32, np.uint32, 0x7F800000, 0xFF800000),
    8: (np.int64, np.uint64, 0x7FF0000000000000, 0xFFF0000000000000),
}


def infinite(numbers: Numbers) -> float:
    """Return infinity where NaN or infinity is among the numbers, else 0.

    Compares bits: measured on 8 MB of float16, 45 GB/s against 1.4 GB/s of numpy.isfinite, and 1.8 GB/s of
    the hash that every piece goes through.
    """
    if not numbers.size or not np.issubdtype(numbers.dtype, np.floating):
        return 0.0
    signed, unsigned, positive, negative = _BITS[numbers.dtype.itemsize]
    found = numbers.view(signed).max() >= positive or numbers.view(unsigned).max() >= negative
    return math.inf if found else 0.0


@dataclass(frozen=True, kw_only=True)
class NotFinite:
    """A stored tensor with numbers that are none.

    Attributes:
        tensor: Where it is.
        nans: How many NaN it holds.
        infinities: How many infinities, of either sign.
    """

    tensor: StoredTensor
    nans: int
    infinities: int


def find_not_finite(storage: Storage, tensors: Iterable[StoredTensor]) -> list[NotFinite]:
    """Look for NaN and infinity in stored tensors, in the order of their bytes; reads all of them.

    Args:
        storage: The checkpoint's files.
        tensors: Where they lie.
    """
    found = []
    readers: dict[str, Reader] = {}
    try:
        for tensor in sorted(tensors, key=lambda each: (each.file, each.offset)):
            if tensor.dtype not in _LAYOUTS:
                continue
            if tensor.file not in readers:
                readers[tensor.file] = storage.open(tensor.file)
            counts = [_count(piece, tensor.dtype) for piece in _pieces(readers[tensor.file], tensor)]
            nans, infinities = (sum(column) for column in zip((0, 0), *counts, strict=True))
            if nans or infinities:
                found.append(NotFinite(tensor=tensor, nans=nans, infinities=infinities))
    finally:
        for reader in readers.values():
            reader.close()
    return found


def not_finite(component: str, storage: Storage, tensors: Iterable[StoredTensor]) -> ConversionError | None:
    """Return the error for a component whose stored weights hold NaN or infinity; None when none do."""
    found = find_not_finite(storage, tensors)
    if not found:
        return None
    shown = [
        f"{each.tensor.name} ({_counted(each)} of {_elements(each.tensor):,})" for each in found[:_SHOWN]
    ]
    more = f" and {len(found) - _SHOWN} more tensors" if len(found) > _SHOWN else ""
    total = sum(each.nans + each.infinities for each in found)
    return ConversionError(
        "weights.not_finite",
        f"The checkpoint itself holds {total:,} weight{'s' * (total != 1)} of {component!r} that "
        f"{'are no numbers' if total != 1 else 'is no number'}: {', '.join(shown)}{more}.",
        "No precision makes them right: download the file again, or use another version of the model.",
    )


def _pieces(reader: Reader, tensor: StoredTensor) -> Iterator[bytearray]:
    for first in range(0, tensor.size_bytes, _PIECE_BYTES):
        piece = bytearray(min(_PIECE_BYTES, tensor.size_bytes - first))
        reader.read_into(memoryview(piece), tensor.offset + first)
        yield piece


def _count(piece: bytearray, dtype: str) -> tuple[int, int]:
    """Count NaN and infinities."""
    kind, exponent, fraction = _LAYOUTS[dtype]
    numbers: npt.NDArray[np.unsignedinteger] = np.frombuffer(piece, kind)
    special = numbers[(numbers & kind(exponent)) == kind(exponent)]
    infinities = int(np.count_nonzero((special & kind(fraction)) == 0))
    return special.size - infinities, infinities


def _elements(tensor: StoredTensor) -> int:
    return tensor.size_bytes // np.dtype(_LAYOUTS[tensor.dtype][0]).itemsize


def _counted(found: NotFinite) -> str:
    parts = [f"{found.nans:,} NaN"] if found.nans else []
    if found.infinities:
        parts.append(f"{found.infinities:,} infinit{'y' if found.infinities == 1 else 'ies'}")
    return " and ".join(parts)

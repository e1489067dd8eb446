"""The table of contents of a safetensors file, read and checked without touching the tensors."""

from __future__ import annotations

import json
import math
import struct
from collections import Counter
from dataclasses import dataclass
from typing import Any, TypeGuard

from conversions.checkpoint.lfs_pointer import is_pointer, pointer_error
from conversions.checkpoint.storage import Storage
from conversions.errors import ConversionError

# Source: the safetensors format description (huggingface/safetensors, README "Format") and its
# tensor.rs: the types, the longest header, and that the tensors fill the file without gap or overlap.
_LENGTH_BYTES = 8
_LONGEST_HEADER_BYTES = 100_000_000
_ELEMENT_BITS = {
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32,
    "I64": 64, "U64": 64, "F64": 64, "C64": 64,
}  # fmt: skip
# Far more than any model has (FLUX.2 has about 2,000), few enough for the table to fit into memory.
_MOST_TENSORS = 200_000
_MOST_DIMENSIONS = 64
# Enough of a file's start to know a pointer with all that it says.
_POINTER_BYTES = 1024


@dataclass(frozen=True, kw_only=True)
class StoredTensor:
    """Where a tensor lies in a checkpoint.

    Attributes:
        name: Its name in the file.
        file: The file's name in its storage.
        dtype: As safetensors writes it: ``"F32"``, ``"F16"``, ``"BF16"`` ...
        shape: Its dimensions.
        offset: First byte, counted from the start of the file.
        size_bytes: How many bytes it takes.
    """

    name: str
    file: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    size_bytes: int


def read_header(storage: Storage, file: str) -> dict[str, StoredTensor]:
    """Read the table of a safetensors file.

    Args:
        storage: The checkpoint's files.
        file: The file's name.

    Returns:
        The tensors by name, in the order of their bytes.

    Raises:
        ConversionError: ``checkpoint.truncated``, ``checkpoint.corrupt`` or ``checkpoint.lfs_pointer``.
    """
    text, whole = _read_table(storage, file), storage.size_bytes(file)
    base = _LENGTH_BYTES + len(text)
    try:
        found = _parse(text, file, base)
    except _TableError as error:
        raise _corrupt(storage, file, str(error)) from error
    end = max((tensor.offset + tensor.size_bytes for tensor in found), default=base)
    if end > whole:
        raise ConversionError(
            "checkpoint.truncated",
            f"{storage.label}/{file} is cut short: {whole:,} of {end:,} bytes are there.",
            "Download or copy this file again.",
        )
    if end < whole:
        raise _corrupt(storage, file, f"{whole - end:,} bytes at its end belong to no tensor")
    return {tensor.name: tensor for tensor in found}


def read_metadata(storage: Storage, file: str) -> dict[str, str]:
    """Read the free texts of a safetensors file's header, for people and tools; what is no text is left out.

    Raises:
        ConversionError: As ``read_header``.
    """
    try:
        table = json.loads(_read_table(storage, file))
    except (ValueError, RecursionError) as error:
        raise _corrupt(storage, file, "its table of tensors cannot be read") from error
    found = table.get("__metadata__") if isinstance(table, dict) else None
    return {
        str(name): value
        for name, value in (found.items() if isinstance(found, dict) else ())
        if isinstance(value, str)
    }


def _read_table(storage: Storage, file: str) -> bytes:
    """Read the text of a header."""
    whole = storage.size_bytes(file)
    reader = storage.open(file)
    try:
        start = bytearray(min(whole, _POINTER_BYTES))
        reader.read_into(memoryview(start), 0)
        if is_pointer(bytes(start)):
            raise pointer_error(f"{storage.label}/{file}", bytes(start))
        if whole < _LENGTH_BYTES:
            raise _corrupt(storage, file, "it is too short to be a safetensors file")
        length = int(struct.unpack_from("<Q", start)[0])
        if length > min(_LONGEST_HEADER_BYTES, whole - _LENGTH_BYTES):
            raise _corrupt(storage, file, "its header is longer than the file, so it is no safetensors file")
        text = bytearray(length)
        reader.read_into(memoryview(text), _LENGTH_BYTES)
    finally:
        reader.close()
    return bytes(text)


class _TableError(Exception):
    """The table of tensors cannot be used; the text says why."""


def _parse(text: bytes, file: str, base: int) -> list[StoredTensor]:
    """Read the table; its tensors come in the order of their bytes.

    Raises:
        _TableError: Something in it is not as the format wants it.
    """
    if text.count(b'"data_offsets"') > _MOST_TENSORS:
        raise _TableError(f"its table names more than {_MOST_TENSORS:,} tensors")
    try:
        table = json.loads(text.decode("utf-8"), object_pairs_hook=_unique)
        texts = table.get("__metadata__") if isinstance(table, dict) else None
        if isinstance(texts, dict) and all(isinstance(each, str) for each in texts.values()):
            "".join(texts.values()).encode()
        elif texts is not None:
            raise _TableError("its __metadata__ holds something else than texts")
    except (ValueError, RecursionError) as error:
        raise _TableError("its table of tensors cannot be read") from error
    if not isinstance(table, dict):
        raise _TableError("its table of tensors cannot be read")
    found = [_entry(name, file, entry, base) for name, entry in table.items() if name != "__metadata__"]
    found.sort(key=lambda tensor: (tensor.offset, tensor.size_bytes))
    end = base
    for tensor in found:
        if tensor.offset != end:
            what = "shares bytes with another tensor" if tensor.offset < end else "leaves a gap before it"
            raise _TableError(f"its tensor {tensor.name} {what}")
        end += tensor.size_bytes
    return found


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    "".join(table).encode()  # half of a surrogate pair is no text
    if len(table) < len(pairs):
        twice, _ = Counter(name for name, _ in pairs).most_common(1)[0]
        raise _TableError(f"its table holds {twice} twice")
    return table


def _entry(name: str, file: str, entry: Any, base: int) -> StoredTensor:
    fields = entry if isinstance(entry, dict) else {}
    dtype, shape, offsets = fields.get("dtype"), fields.get("shape"), fields.get("data_offsets")
    if not isinstance(dtype, str) or dtype not in _ELEMENT_BITS:
        raise _TableError(f"its tensor {name} has the type {dtype!r}, which the format does not have")
    if not _are_counts(shape) or len(shape) > _MOST_DIMENSIONS:
        raise _TableError(f"its tensor {name} has no usable shape")
    if not _are_counts(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise _TableError(f"its tensor {name} has no usable place")
    first, last = offsets
    if 8 * (last - first) != _ELEMENT_BITS[dtype] * math.prod(shape):
        raise _TableError(f"its tensor {name} takes {last - first:,} bytes, which its shape does not")
    return StoredTensor(
        name=name, file=file, dtype=dtype, shape=tuple(shape), offset=base + first, size_bytes=last - first
    )


def _are_counts(values: Any) -> TypeGuard[list[int]]:
    return isinstance(values, list) and all(type(value) is int and 0 <= value < 1 << 63 for value in values)


def _corrupt(storage: Storage, file: str, reason: str) -> ConversionError:
    return ConversionError(
        "checkpoint.corrupt",
        f"{storage.label}/{file} is damaged: {reason}.",
        "Download or copy this file again.",
    )

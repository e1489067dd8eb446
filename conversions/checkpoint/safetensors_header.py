"""The table of contents of a safetensors file, read and checked without touching the tensors."""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass
from typing import Any

from conversions.checkpoint.storage import Storage
from conversions.errors import ConversionError

# Source: the safetensors format description (huggingface/safetensors, README "Format").
_LENGTH_BYTES = 8
_LONGEST_HEADER_BYTES = 100_000_000
_ELEMENT_BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "I16": 2, "U16": 2, "F16": 2, "BF16": 2,
    "I32": 4, "U32": 4, "F32": 4, "I64": 8, "U64": 8, "F64": 8,
}  # fmt: skip


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
        ConversionError: ``checkpoint.truncated`` or ``checkpoint.corrupt``.
    """
    whole = storage.size_bytes(file)
    reader = storage.open(file)
    try:
        start = bytearray(_LENGTH_BYTES)
        if whole < _LENGTH_BYTES:
            raise _corrupt(storage, file, "it is too short to be a safetensors file")
        reader.read_into(memoryview(start), 0)
        length = int(struct.unpack("<Q", start)[0])
        if length > min(_LONGEST_HEADER_BYTES, whole - _LENGTH_BYTES):
            raise _corrupt(storage, file, "its header is longer than the file, so it is no safetensors file")
        text = bytearray(length)
        reader.read_into(memoryview(text), _LENGTH_BYTES)
    finally:
        reader.close()
    try:
        table = json.loads(text)
        entries = {name: entry for name, entry in table.items() if name != "__metadata__"}
        found = [_entry(name, file, entry, _LENGTH_BYTES + length) for name, entry in entries.items()]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _corrupt(storage, file, "its table of tensors cannot be read") from error
    found.sort(key=lambda tensor: tensor.offset)
    end = max((tensor.offset + tensor.size_bytes for tensor in found), default=_LENGTH_BYTES + length)
    if end > whole:
        raise ConversionError(
            "checkpoint.truncated",
            f"{storage.label}/{file} is cut short: {whole:,} of {end:,} bytes are there.",
            "Download or copy this file again.",
        )
    return {tensor.name: tensor for tensor in found}


def _entry(name: str, file: str, entry: dict[str, Any], base: int) -> StoredTensor:
    first, last = (int(offset) for offset in entry["data_offsets"])
    shape = tuple(int(size) for size in entry["shape"])
    dtype = str(entry["dtype"])
    if last - first != _ELEMENT_BYTES[dtype] * math.prod(shape) or first < 0:
        raise ValueError(name)
    return StoredTensor(
        name=name, file=file, dtype=dtype, shape=shape, offset=base + first, size_bytes=last - first
    )


def _corrupt(storage: Storage, file: str, reason: str) -> ConversionError:
    return ConversionError(
        "checkpoint.corrupt",
        f"{storage.label}/{file} is damaged: {reason}.",
        "Download or copy this file again.",
    )

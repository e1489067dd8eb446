"""The table of contents of a GGUF file, read and checked without touching the tensors."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from conversions.checkpoint.element_types import ELEMENT_TYPES
from conversions.checkpoint.safetensors_header import StoredTensor
from conversions.checkpoint.storage import Reader, Storage
from conversions.errors import ConversionError

# Source: ggml's docs/gguf.md: magic, version, counts, then metadata, then tensors, then aligned data.
_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_ALIGNMENT = 32
_SHAPE_BEFORE = "comfy.gguf.orig_shape."
"""Metadata of files for ComfyUI: dimensions of a tensor that was stored in rows of 256."""

# Source: enum ggml_type in ggml.h.
_TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 8: "Q8_0", 9: "Q8_1", 10: "Q2_K",
    11: "Q3_K", 12: "Q4_K", 13: "Q5_K", 14: "Q6_K", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS",
    19: "IQ1_S", 20: "IQ4_NL", 21: "IQ3_S", 22: "IQ2_S", 23: "IQ4_XS", 24: "I8", 25: "I16", 26: "I32",
    27: "I64", 28: "F64", 29: "IQ1_M", 30: "BF16", 34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4",
}  # fmt: skip

# Source: enum gguf_type; strings and arrays are 8 and 9.
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9

# Far above what is published: a tokenizer's words are the largest part of a table.
_LARGEST_TABLE_BYTES = 64 << 20
_LONGEST_NAME_BYTES = 1 << 10
_MOST_TENSORS = 200_000
_MOST_DIMENSIONS = 8
_READ_AT_ONCE_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class GgufTable:
    """What a GGUF file holds.

    Attributes:
        tensors: By name, in the order of their bytes; dimensions as PyTorch has them.
        metadata: Texts and numbers by key; lists of texts are left out.
    """

    tensors: Mapping[str, StoredTensor]
    metadata: Mapping[str, Any]


class _TableError(Exception):
    """The table cannot be used; the text says why."""


def read_gguf(storage: Storage, file: str) -> GgufTable:
    """Read the table of a GGUF file.

    Args:
        storage: The checkpoint's files.
        file: The file's name.

    Raises:
        ConversionError: ``checkpoint.truncated``, ``checkpoint.corrupt``, or ``weights.dtype`` for a type
            that cannot be read.
    """
    whole = storage.size_bytes(file)
    reader = storage.open(file)
    try:
        return _table(_Cursor(reader, whole), file, whole)
    except _TableError as error:
        raise ConversionError(
            "checkpoint.corrupt",
            f"{storage.label}/{file} is damaged: {error}.",
            "Download or copy this file again.",
        ) from error
    finally:
        reader.close()


class _Cursor:
    """Reads a table from its start, a piece at a time, and never past its limit."""

    def __init__(self, reader: Reader, whole: int) -> None:
        self._reader = reader
        self._limit = min(whole, _LARGEST_TABLE_BYTES)
        self._buffer = bytearray()
        self._start = 0
        self.position = 0

    def take(self, count: int) -> bytes:
        if count > self._limit - self.position:
            raise _TableError("its table of tensors is longer than the file, or than any table is")
        begin = self.position - self._start
        if begin + count > len(self._buffer):
            size = min(max(count, _READ_AT_ONCE_BYTES), self._limit - self.position)
            self._buffer = bytearray(size)
            self._reader.read_into(memoryview(self._buffer), self.position)
            self._start, begin = self.position, 0
        self.position += count
        return bytes(self._buffer[begin : begin + count])

    def number(self, form: str) -> Any:
        return struct.unpack(f"<{form}", self.take(struct.calcsize(form)))[0]

    def text(self, longest: int = _LARGEST_TABLE_BYTES) -> str:
        length = self.number("Q")
        if length > longest:
            raise _TableError("a name in its table is too long")
        return self.take(length).decode("utf-8", "replace")

    def value(self, kind: int) -> Any:
        if kind in _SCALARS:
            return self.number(_SCALARS[kind])
        if kind == _STRING:
            return self.text()
        if kind != _ARRAY:
            raise _TableError(f"its metadata has a value of the unknown type {kind}")
        element, count = self.number("I"), self.number("Q")
        if element in _SCALARS:
            form = _SCALARS[element]
            content = self.take(count * struct.calcsize(form))
            return list(struct.unpack(f"<{count}{form}", content))
        if element != _STRING:
            raise _TableError("its metadata has a list of lists")
        for _ in range(count):
            self.text()
        return None


def _table(cursor: _Cursor, file: str, whole: int) -> GgufTable:
    if cursor.take(4) != _MAGIC:
        raise _TableError("it is no GGUF file")
    version = cursor.number("I")
    if version not in _VERSIONS:
        raise _TableError(f"it is of the version {version}, and {_VERSIONS[0]} and {_VERSIONS[1]} are known")
    count, keys = cursor.number("Q"), cursor.number("Q")
    if count > _MOST_TENSORS:
        raise _TableError(f"its table names more than {_MOST_TENSORS:,} tensors")
    metadata: dict[str, Any] = {}
    for _ in range(keys):
        key = cursor.text(_LONGEST_NAME_BYTES)
        value = cursor.value(cursor.number("I"))
        if value is not None:
            metadata[key] = value
    entries = [_entry(cursor) for _ in range(count)]
    alignment = metadata.get("general.alignment", _ALIGNMENT)
    if type(alignment) is not int or not 1 <= alignment <= 1 << 20:
        raise _TableError("its alignment is no usable number")
    base = -(-cursor.position // alignment) * alignment
    tensors = [_stored(entry, file, base, metadata) for entry in entries]
    tensors.sort(key=lambda tensor: (tensor.offset, tensor.size_bytes))
    if len({tensor.name for tensor in tensors}) < len(tensors):
        raise _TableError("its table names a tensor twice")
    end = 0
    for tensor in tensors:
        if tensor.offset < end:
            raise _TableError(f"its tensor {tensor.name} shares bytes with another tensor")
        end = tensor.offset + tensor.size_bytes
    if end > whole:
        raise ConversionError(
            "checkpoint.truncated",
            f"{file} is cut short: {whole:,} of {end:,} bytes are there.",
            "Download or copy this file again.",
        )
    return GgufTable(tensors={tensor.name: tensor for tensor in tensors}, metadata=metadata)


_Entry = tuple[str, tuple[int, ...], int, int]


def _entry(cursor: _Cursor) -> _Entry:
    name = cursor.text(_LONGEST_NAME_BYTES)
    dimensions = cursor.number("I")
    if dimensions > _MOST_DIMENSIONS:
        raise _TableError(f"its tensor {name} has {dimensions} dimensions")
    # ggml names the fastest dimension first.
    shape = tuple(cursor.number("Q") for _ in range(dimensions))[::-1]
    return name, shape, cursor.number("I"), cursor.number("Q")


def _stored(entry: _Entry, file: str, base: int, metadata: Mapping[str, Any]) -> StoredTensor:
    name, shape, kind, offset = entry
    dtype = _TYPES.get(kind, f"the type {kind} of ggml")
    found = ELEMENT_TYPES.get(dtype)
    if found is None:
        raise ConversionError(
            "weights.dtype",
            f"The tensor {name} of {file} is stored as {dtype}, which cannot be converted yet.",
            f"Supported are {', '.join(ELEMENT_TYPES)}.",
        )
    elements = math.prod(shape)
    if elements % found.block or (shape and shape[-1] % found.block):
        raise _TableError(f"its tensor {name} has rows that are no whole blocks")
    before = metadata.get(_SHAPE_BEFORE + name)
    if before is not None:
        if not isinstance(before, list) or math.prod(before) != elements or min(before, default=1) < 0:
            raise _TableError(f"the dimensions that its metadata gives to {name} do not fit")
        shape = tuple(int(size) for size in before)
    return StoredTensor(
        name=name,
        file=file,
        dtype=dtype,
        shape=shape,
        offset=base + offset,
        size_bytes=found.bytes_of(elements),
    )

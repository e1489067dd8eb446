"""Read stored tensors of files on this machine as numbers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from conversions.checkpoint.element_types import Numbers, element_type
from conversions.checkpoint.safetensors_header import StoredTensor
from conversions.weights.expression import Read


def read_numbers(paths: Mapping[str, Path]) -> Read:
    """Return a reader for ``Expression.evaluate``; any number of threads may use it.

    Args:
        paths: Where each file lies, by the name that the tensors give.
    """

    def read(tensor: StoredTensor, first: int, count: int) -> Numbers:
        found = element_type(tensor)
        raw = bytearray(found.bytes_of(count))
        with paths[tensor.file].open("rb", buffering=0) as file:
            file.seek(tensor.offset + found.bytes_of(first))
            view, done = memoryview(raw), 0
            while done < len(raw) and (got := file.readinto(view[done:])):
                done += got
        if done < len(raw):
            raise EOFError(f"{paths[tensor.file]} ends within {tensor.name}")
        return found.decode(raw)

    return read

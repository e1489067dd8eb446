"""Small files that are in no folder: those that the program itself brings."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from conversions.checkpoint.storage import Reader


class Memory:
    """Small files by name.

    Args:
        label: What to call this place in messages.
        files: Their content.
    """

    def __init__(self, label: str, files: Mapping[str, bytes]) -> None:
        self._label = label
        self._files = dict(files)

    @property
    def label(self) -> str:
        """What to call this place in messages."""
        return self._label

    def names(self) -> Sequence[str]:
        """Return the names of all files, sorted."""
        return sorted(self._files)

    def size_bytes(self, name: str) -> int:
        """Return the size of a file."""
        return len(self._files[name])

    def version(self, name: str) -> str:
        """Return the hash of the file."""
        return self.known_sha256(name)

    def known_sha256(self, name: str) -> str:
        """Return the hash of the file."""
        return hashlib.sha256(self._files[name]).hexdigest()

    def path_of(self, name: str) -> Path | None:  # noqa: ARG002 - nothing lies on the disk
        """Return None."""
        return None

    def read(self, name: str) -> bytes:
        """Return a file."""
        return self._files[name]

    def open(self, name: str) -> Reader:
        """Open a file for reading by position."""
        return _Reader(self._files[name])


class _Reader:
    def __init__(self, content: bytes) -> None:
        self._content = content

    def read_into(self, buffer: memoryview, offset: int) -> None:
        buffer[:] = self._content[offset : offset + len(buffer)]

    def close(self) -> None:
        pass

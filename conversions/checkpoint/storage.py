"""Where a checkpoint's bytes come from: a folder here, or whatever can read ranges of named files."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol, Self

from conversions.errors import ConversionError

# As deep as snapshots lie in the Hub's cache. Who gives a home folder, or a whole disk, waits for no walk.
_FOLDERS_BELOW = 3


class Reader(Protocol):
    """An open file that is read by position; used by one thread at a time."""

    def read_into(self, buffer: memoryview, offset: int) -> None:
        """Fill ``buffer`` with the bytes that start at ``offset``.

        Raises:
            ConversionError: The bytes cannot be had.
        """
        ...

    def close(self) -> None:
        """Let go of the file."""
        ...


class Storage(Protocol):
    """A checkpoint's files, named by their path below it with ``/`` between folders."""

    @property
    def label(self) -> str:
        """What to call this place in messages."""
        ...

    def names(self) -> Sequence[str]:
        """Return the names of all files, sorted."""
        ...

    def size_bytes(self, name: str) -> int:
        """Return the size of a file."""
        ...

    def version(self, name: str) -> str:
        """Return a mark that changes when the file's content does."""
        ...

    def known_sha256(self, name: str) -> str:
        """Return the hash that the file must have, where the place knows it; else an empty string."""
        ...

    def path_of(self, name: str) -> Path | None:
        """Return where the file lies on this machine; None when it does not."""
        ...

    def read(self, name: str) -> bytes:
        """Return a small file whole."""
        ...

    def open(self, name: str) -> Reader:
        """Open a large file for reading by position."""
        ...


class Folder:
    """A checkpoint in a folder of this machine."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def label(self) -> str:
        """The folder's path."""
        return str(self.path)

    def names(self) -> Sequence[str]:
        """Return the names of all files, sorted."""
        return sorted(_names_in(self.path, "", below=_FOLDERS_BELOW))

    def size_bytes(self, name: str) -> int:
        """Return the size of a file."""
        return (self.path / name).stat().st_size

    def version(self, name: str) -> str:
        """Return size and time of last change."""
        found = (self.path / name).stat()
        return f"{found.st_size}-{found.st_mtime_ns}"

    def known_sha256(self, name: str) -> str:  # noqa: ARG002 - a folder knows nothing of what a file must be
        """Return an empty string."""
        return ""

    def path_of(self, name: str) -> Path | None:
        """Return the file's path."""
        return self.path / name

    def read(self, name: str) -> bytes:
        """Return a small file whole.

        Raises:
            ConversionError: See :meth:`demand_own`.
        """
        self.demand_own(name)
        return (self.path / name).read_bytes()

    def demand_own(self, name: str) -> None:
        """Refuse a small file that is a link to somewhere else: what is copied is passed on with a package.

        Links into the Hub's cache are how its folders look. Weights may be links: they are read as tensors.

        Raises:
            ConversionError: ``checkpoint.link_outside``.
        """
        found = (self.path / name).resolve()
        cached = found.parent.name == "blobs" and found.parents[1].name.startswith("models--")
        if not cached and not found.is_relative_to(self.path.resolve()):
            raise ConversionError(
                "checkpoint.link_outside",
                f"{self.path / name} is a link to {found}, outside of the checkpoint.",
                "Put a copy of the file in its place if you trust where the checkpoint comes from.",
            )

    def open(self, name: str) -> Reader:
        """Open a large file for reading by position."""
        return _LocalReader(self.path / name)


def _names_in(folder: Path, above: str, *, below: int) -> Iterator[str]:
    """List files by name, and folders below as far as asked; what cannot be read is not there.

    A link to a folder is followed once, so that its files can be refused by name: see
    :meth:`Folder.demand_own`.
    """
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return
    for entry in entries:
        with suppress(OSError):  # links that lead in circles, or to where one may not look
            if entry.is_file():
                yield f"{above}{entry.name}"
            elif below and entry.is_dir():
                left = 0 if entry.is_symlink() else below - 1
                yield from _names_in(Path(entry.path), f"{above}{entry.name}/", below=left)


class _LocalReader:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("rb", buffering=0)
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self._file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)

    def read_into(self, buffer: memoryview, offset: int) -> None:
        self._file.seek(offset)
        done = 0
        while done < len(buffer):
            count = self._file.readinto(buffer[done:])
            if not count:
                raise ConversionError(
                    "checkpoint.truncated",
                    f"{self._path} ends before byte {offset + len(buffer)}: it is cut short.",
                    "Download or copy this file again.",
                )
            done += count

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

"""A package on disk: made in a staging folder that survives interruption, published by one rename."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from conversions.checkpoint.json_file import read_object_file
from conversions.errors import ConversionError

MANIFEST = "manifest.json"
FORMAT = 1
GRAPH_FILE = "model.onnx"
DATA_FILE = "model.onnx_data"

_JOURNAL = ".progress.json"
_STREAM = ".stream-"
_HASHED_AT_ONCE_BYTES = 4 << 20
# Linux: swap two paths in one step. Source: renameat2(2), linux/fs.h.
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


@dataclass(frozen=True, kw_only=True)
class FileRecord:
    """A file of a package: what it must be."""

    sha256: str
    size_bytes: int


@dataclass(frozen=True, kw_only=True)
class Package:
    """A published package.

    Attributes:
        folder: Where it is.
        manifest: Its ``manifest.json``.
    """

    folder: Path
    manifest: Mapping[str, Any]

    @property
    def submodels(self) -> tuple[str, ...]:
        """Names of its submodels."""
        return tuple(self.manifest["submodels"])

    @property
    def files(self) -> dict[str, FileRecord]:
        """Its files and their hashes, by path below the folder."""
        return {name: FileRecord(**entry) for name, entry in self.manifest["files"].items()}

    def graph(self, submodel: str) -> Path:
        """Return the path of a submodel's ONNX file."""
        return self.folder / submodel / GRAPH_FILE


def open_package(folder: Path) -> Package:
    """Open a package.

    Raises:
        ConversionError: It is missing, or its manifest cannot be read.
    """
    path = folder / MANIFEST
    if not path.is_file():
        state = "has no manifest.json, so it is no package" if folder.is_dir() else "does not exist"
        raise ConversionError(
            "package.missing",
            f"{folder} {state}.",
            "Make one with: sdsetup convert MODEL --output FOLDER",
        )
    try:
        manifest = read_object_file(path)
    except ConversionError as error:
        raise ConversionError("package.torn", error.message, "Convert the checkpoint again.") from error
    try:
        if manifest["format"] != FORMAT:
            raise ConversionError(
                "package.format",
                f"{folder} was made by another version of sdsetup (package format {manifest['format']}).",
                "Convert the checkpoint again.",
            )
        package = Package(folder=folder, manifest=manifest)
        package.files, package.submodels  # noqa: B018 - a manifest without them is torn
    except (ValueError, KeyError, TypeError) as error:
        raise ConversionError(
            "package.torn", f"{path} cannot be read ({error}).", "Convert the checkpoint again."
        ) from error
    return package


def record(path: Path) -> FileRecord:
    """Hash a file."""
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(_HASHED_AT_ONCE_BYTES))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            digest.update(buffer[:count])
    return FileRecord(sha256=digest.hexdigest(), size_bytes=path.stat().st_size)


class Staging:
    """The folder in which a package grows, beside its final place.

    A component that is finished is written into a journal with the hashes of its files; a later run with the
    same plan takes it over if the hashes still hold. Weights that a stream was writing stay for it to go on;
    everything else found there is made anew.
    """

    def __init__(self, output: Path, fingerprint: str) -> None:
        self.output = output
        self.folder = output.with_name(f".{output.name}.partial")
        self._fingerprint = fingerprint
        self._done: dict[str, dict[str, Any]] = {}

    def begin(self) -> None:
        """Create the folder, or take over what an interrupted run of the same plan left there."""
        journal = self._read_journal()
        if journal.get("fingerprint") != self._fingerprint:
            remove(self.folder)
            self.folder.mkdir(parents=True)
            self._write_journal()
            return
        for component, entry in journal["done"].items():
            if all(self._holds(name, FileRecord(**known)) for name, known in entry["files"].items()):
                self._done[component] = entry
        kept = {name for entry in self._done.values() for name in entry["files"]}
        for path in sorted(self.folder.rglob("*"), reverse=True):
            name = path.relative_to(self.folder).as_posix()
            begun = path.name == DATA_FILE or name.startswith(_STREAM)
            if path.is_file() and name not in kept and name != _JOURNAL and not begun:
                path.unlink()

    def finished(self, component: str) -> Mapping[str, Any] | None:
        """Return what was noted when the component was finished, or None if it has to be made."""
        entry = self._done.get(component)
        return None if entry is None else entry["notes"]

    def reopen(self, component: str) -> None:
        """Forget that a component was finished: it is made again."""
        del self._done[component]
        self._write_journal()

    def stream_path(self, component: str) -> Path:
        """Return where the stream of a component's weights notes how far it is."""
        return self.folder / f"{_STREAM}{component}.json"

    def finish(self, component: str, files: Mapping[str, FileRecord], notes: Mapping[str, Any]) -> None:
        """Note that a component's files are complete."""
        self._done[component] = {
            "files": {name: vars(entry) for name, entry in files.items()},
            "notes": dict(notes),
        }
        self._write_journal()
        self.stream_path(component).unlink(missing_ok=True)

    def files(self) -> dict[str, FileRecord]:
        """Return the finished files."""
        return {
            name: FileRecord(**known)
            for entry in self._done.values()
            for name, known in entry["files"].items()
        }

    def publish(self, manifest: Mapping[str, Any]) -> Package:
        """Write the manifest and put the folder in its place with one rename.

        The old package, if any, stays until the new one is in place.
        """
        write_json(self.folder / MANIFEST, manifest)
        (self.folder / _JOURNAL).unlink()
        if self.output.exists():
            old = self.output.with_name(f".{self.output.name}.old")
            remove(old)
            if not _exchange(self.folder, self.output):
                self.output.rename(old)
                self.folder.rename(self.output)
            remove(self.folder)
            remove(old)
        else:
            self.folder.rename(self.output)
        return Package(folder=self.output, manifest=manifest)

    def discard(self) -> None:
        """Throw the folder away."""
        remove(self.folder)

    def _holds(self, name: str, known: FileRecord) -> bool:
        path = self.folder / name
        return path.is_file() and path.stat().st_size == known.size_bytes and record(path) == known

    def _read_journal(self) -> dict[str, Any]:
        try:
            journal = json.loads((self.folder / _JOURNAL).read_text("utf-8"))
        except (OSError, ValueError):
            return {}
        return journal if isinstance(journal, dict) else {}

    def _write_journal(self) -> None:
        write_json(self.folder / _JOURNAL, {"fingerprint": self._fingerprint, "done": self._done})


@contextlib.contextmanager
def reserved(output: Path, *, overwrite: bool) -> Iterator[None]:
    """Hold the place of a package while it is made.

    Raises:
        ConversionError: It is taken, in use by another run, or cannot be written.
    """
    old = output.with_name(f".{output.name}.old")
    if old.exists() and not output.exists():
        old.rename(output)  # a run was killed between two renames: the old package comes back
    if output.exists() and not overwrite:
        raise ConversionError(
            "package.exists",
            f"{output} exists already.",
            "Add --overwrite to replace it, or choose another folder with --output.",
        )
    if output.exists() and not output.is_dir():
        raise ConversionError(
            "package.not_a_folder", f"{output} is a file.", "Choose another folder with --output."
        )
    if output.exists() and any(output.iterdir()) and not (output / MANIFEST).is_file():
        raise ConversionError(
            "package.foreign",
            f"{output} holds files that are no package of sdsetup; it is not replaced.",
            "Choose another folder with --output.",
        )
    lock = output.with_name(f".{output.name}.lock")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(lock, timeout=0):
            yield
    except Timeout as error:
        raise ConversionError(
            "package.busy", f"Another run is writing {output}.", "Wait until it has finished."
        ) from error
    except PermissionError as error:
        raise ConversionError(
            "package.read_only",
            f"{error.filename or output} cannot be written.",
            "Choose a folder of your own with --output.",
        ) from error
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise ConversionError(
            "package.disk_full",
            f"The disk of {output.parent} is full; what was finished is kept for the next run.",
            "Free some space and run the same command again.",
        ) from error
    finally:
        with contextlib.suppress(OSError):
            lock.unlink()


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", "utf-8")
    partial.replace(path)


def remove(folder: Path) -> None:
    """Delete a folder if it is there."""
    if folder.exists():
        shutil.rmtree(folder)


def _exchange(first: Path, second: Path) -> bool:
    """Swap two folders in one step where the system can; say whether it did."""
    if sys.platform != "linux":
        return False
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
        return False
    done: int = renameat2(_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _RENAME_EXCHANGE)
    return done == 0

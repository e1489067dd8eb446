"""Package folders: build in a resumable staging folder, publish with one rename."""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from conversions.checkpoint.json_file import read_object_file
from conversions.errors import ConversionError
from conversions.family import (
    Family,
    PipelineConfigs,
    Role,
    Submodel,
    families_of,
    family_named,
    find_family,
)
from conversions.package.manifest_fields import check_fields

if TYPE_CHECKING:
    from conversions.recipe import Recipe

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
    """Expected hash and size of a file in a package."""

    sha256: str
    size_bytes: int


@dataclass(frozen=True, kw_only=True)
class Package:
    """A folder that a conversion wrote.

    Attributes:
        folder: Path of the package.
        manifest: Parsed ``manifest.json``.
    """

    folder: Path
    manifest: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.resolve().name

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of ``manifest.json``, which holds the hashes of all other files."""
        return hashlib.sha256((self.folder / MANIFEST).read_bytes()).hexdigest()

    @property
    def target(self) -> str:
        """What it was converted for."""
        return str(self.manifest["target"])

    @property
    def origin(self) -> str:
        """The name of the checkpoint that it was made from."""
        return str(self.manifest["checkpoint"]["origin"])

    @property
    def submodel_names(self) -> tuple[str, ...]:
        """Names of its submodels."""
        return tuple(self.manifest["submodels"])

    @property
    def is_fp32(self) -> bool:
        """Whether all its submodels are float32."""
        return all(self.precision(name) == "fp32" for name in self.submodel_names)

    @property
    def files(self) -> dict[str, FileRecord]:
        """Files with hash and size, by path relative to the folder."""
        return {name: FileRecord(**entry) for name, entry in self.manifest["files"].items()}

    def graph(self, submodel: str) -> Path:
        """Return the path of a submodel's ONNX file."""
        return self.folder / submodel / GRAPH_FILE

    def weight_files(self, submodel: str) -> dict[str, FileRecord]:
        """Return the files that hold a submodel's weights, by path relative to the folder."""
        prefix, small = f"{submodel}/", (GRAPH_FILE, "config.json")
        return {
            name: entry
            for name, entry in self.files.items()
            if name.startswith(prefix) and name.removeprefix(prefix) not in small
        }

    def precision(self, submodel: str) -> str:
        """Return the precision that a submodel was converted to, ``"fp16"`` or ``"fp32"``."""
        own = self.manifest["submodels"][submodel].get("precision")
        return str(own or self.manifest["precision"])

    def quantized(self, submodel: str) -> dict[str, str]:
        """Return the precision of each quantised weight of a submodel, by the weight's name."""
        found = self.manifest["submodels"][submodel].get("quantized", {})
        return dict.fromkeys(found.get("weights", ()), found.get("precision", ""))

    def config(self, folder: str, file: str = "config.json") -> dict[str, Any]:
        """Return a parsed JSON file of one of its folders; empty when there is none.

        Raises:
            ConversionError: ``package.torn``; the file cannot be read.
        """
        path = self.folder / folder / file
        return _read_json(path) if path.is_file() else {}

    @cached_property
    def family(self) -> Family:
        """The family of its pipeline.

        Raises:
            ConversionError: ``family.unsupported``.
        """
        if "family" in self.manifest:
            return family_named(str(self.manifest["family"]))
        return find_family(
            self._configs(families_of(str(self.config("", "model_index.json").get("_class_name"))))
        )

    @cached_property
    def configs(self) -> PipelineConfigs:
        """What decides how images are made; ``config.invalid`` where a field is of another type."""
        return self.family.typed(self._configs((self.family,)), str(self.folder))

    @cached_property
    def submodels(self) -> tuple[Submodel, ...]:
        """Its submodels, in the family's order."""
        return tuple(each for each in self.family.submodels(self.configs) if each.name in self.submodel_names)

    @cached_property
    def recipe(self) -> Recipe:
        """How images are made with it."""
        return self.family.recipe(self.configs)

    def with_role(self, role: Role) -> tuple[str, ...]:
        """Return the names of the submodels that play a role when an image is made."""
        return tuple(each.name for each in self.submodels if each.role == role)

    def _configs(self, families: tuple[Family, ...]) -> PipelineConfigs:
        return PipelineConfigs(
            index=self.config("", "model_index.json"),
            components={
                part.component: self.config(part.name)
                for family in families
                for part in family.parts
                if part.name in self.submodel_names
            },
            scheduler=self.config("scheduler", "scheduler_config.json"),
        )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return read_object_file(path)
    except ConversionError as error:
        raise torn(path.parent, error.message.rstrip(".")) from error


def torn(folder: Path, what: str) -> ConversionError:
    """Return the error for a package that lacks something."""
    return ConversionError("package.torn", f"The package {folder} is incomplete: {what}.")


def open_package(folder: Path) -> Package:
    """Open a package.

    Raises:
        ConversionError: It is missing, or its manifest cannot be read.
    """
    path = folder / MANIFEST
    if folder.is_file():
        inside = next((each for each in folder.parents[:2] if (each / MANIFEST).is_file()), None)
        message = f"{folder} is a file; a package is a folder with a {MANIFEST} in it."
        hint = "Give a package's folder." if inside is None else f"Give the package's folder: {inside}"
        raise ConversionError("package.is_file", message, hint)
    if not path.is_file():
        state = "has no manifest.json, so it is no package" if folder.is_dir() else "does not exist"
        raise ConversionError("package.missing", f"{folder} {state}.")
    try:
        manifest = read_object_file(path)
    except ConversionError as error:
        raise ConversionError("package.torn", error.message) from error
    try:
        if manifest["format"] != FORMAT:
            raise ConversionError(
                "package.format",
                f"{folder} was made by another version of sdsetup (package format {manifest['format']}).",
            )
        check_fields(manifest, str(path))
        package = Package(folder=folder, manifest=manifest)
    except (ValueError, KeyError, TypeError) as error:
        raise ConversionError("package.torn", f"{path} cannot be read ({error}).") from error
    return package


def record(path: Path) -> FileRecord:
    """Return the hash and size of a file."""
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(_HASHED_AT_ONCE_BYTES))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            digest.update(buffer[:count])
    return FileRecord(sha256=digest.hexdigest(), size_bytes=path.stat().st_size)


class Staging:
    """Staging folder of a package, next to its destination.

    Finished components are listed in a journal with the hashes of their files. A later run with the
    same plan reuses them if the hashes still match. A partly written weight file is kept to be resumed;
    everything else is rebuilt.
    """

    def __init__(self, output: Path, fingerprint: str) -> None:
        self.output = output
        self.folder = output.with_name(f".{output.name}.partial")
        self._fingerprint = fingerprint
        self._done: dict[str, dict[str, Any]] = {}

    def begin(self) -> None:
        """Create the folder, or reuse what an interrupted run of the same plan left there."""
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
        """Return the journal entry of a finished component, or None if it has to be built."""
        entry = self._done.get(component)
        return None if entry is None else entry["notes"]

    def reopen(self, component: str) -> None:
        """Remove a component from the journal, so that it is rebuilt."""
        del self._done[component]
        self._write_journal()

    def stream_path(self, component: str) -> Path:
        """Return the path of the progress file of a component's weight stream."""
        return self.folder / f"{_STREAM}{component}.json"

    def finish(self, component: str, files: Mapping[str, FileRecord], notes: Mapping[str, Any]) -> None:
        """Add a component whose files are complete to the journal."""
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
        """Write the manifest and move the folder to its destination with one rename.

        An existing package stays until the new one replaces it.
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
        """Delete the staging folder."""
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


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file atomically."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", "utf-8")
    partial.replace(path)


def remove(folder: Path) -> None:
    """Delete a folder if it exists."""
    if folder.exists():
        shutil.rmtree(folder)


def _exchange(first: Path, second: Path) -> bool:
    """Swap two folders atomically where the system supports it; return whether it did."""
    if sys.platform != "linux":
        return False
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
        return False
    done: int = renameat2(_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _RENAME_EXCHANGE)
    return done == 0

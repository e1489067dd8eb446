"""Where things are written: space, file system, and what writing there can really do."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from sdsetup.machine.facts import Folder, Questions


def cache_folder() -> Path:
    """Name the Hub's cache, as huggingface_hub resolves it.

    Source: huggingface_hub's documentation of its environment variables.
    """
    for name in _OF_CACHE:
        if os.environ.get(name):
            return Path(os.path.expandvars(os.environ[name])).expanduser()
    return hub_home() / "hub"


# The first that is set decides; the others then mean nothing for the cache.
_OF_CACHE = ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE")
_OF_HOME = ("HF_HOME", "XDG_CACHE_HOME")


def cache_variable() -> str:
    """Name the variable that decides where the Hub's cache is; ``HF_HOME`` when none is set."""
    return next((name for name in (*_OF_CACHE, *_OF_HOME) if os.environ.get(name)), "HF_HOME")


def _temporary_variable() -> str:
    """Name the variable that decides where temporary files go, by ``tempfile``'s own order."""
    usual = "TEMP" if sys.platform == "win32" else "TMPDIR"
    return next((name for name in ("TMPDIR", "TEMP", "TMP") if os.environ.get(name)), usual)


def hub_home() -> Path:
    """Name the folder of huggingface_hub's cache, token and settings."""
    variables = os.environ
    if variables.get("HF_HOME"):
        return Path(variables["HF_HOME"]).expanduser()
    base = variables.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "huggingface"


def read(questions: Questions) -> tuple[Folder, ...]:
    """Try the folder of downloads, the folder of results and the one for temporary files."""
    try:
        temporary = tempfile.gettempdir()
    except OSError:  # nowhere to write at all
        temporary = os.environ.get("TMPDIR", "/tmp" if os.name == "posix" else ".")  # noqa: S108 - not written
    places = (
        ("cache", cache_folder(), cache_variable()),
        ("output", questions.output, ""),
        ("temp", Path(temporary), _temporary_variable()),
    )
    return tuple(_try(role, path, variable) for role, path, variable in places)


def _try(role: str, path: Path, variable: str) -> Folder:
    path = path.absolute()
    is_set = variable if os.environ.get(variable) else ""
    folder = Folder(role=role, path=str(path), variable=variable, set_by=is_set)
    probed = next((parent for parent in (path, *path.parents) if parent.exists()), None)
    if probed is None:
        return replace(folder, writable=False, error="no folder above it exists")
    folder = replace(folder, probed=str(probed), file_system=_file_system(probed))
    try:
        usage = shutil.disk_usage(probed)
        folder = replace(folder, free_bytes=usage.free, total_bytes=usage.total)
    except OSError as error:
        folder = replace(folder, error=_said(error))
    if not probed.is_dir():
        return replace(folder, writable=False, error=f"{probed} is a file, not a folder")
    return _write_into(folder, probed)


def _write_into(folder: Folder, place: Path) -> Folder:
    try:
        with tempfile.TemporaryDirectory(
            prefix=".sdsetup-doctor-", dir=place, ignore_cleanup_errors=True
        ) as name:
            trial = Path(name) / "Trial.bin"
            trial.write_bytes(bytes(4096))
            return replace(
                folder,
                writable=True,
                symlinks=_can(lambda: (Path(name) / "symbolic").symlink_to(trial), Path(name) / "symbolic"),
                hard_links=_can(lambda: (Path(name) / "hard").hardlink_to(trial), Path(name) / "hard"),
                case_sensitive=not (Path(name) / "tRIAL.BIN").exists(),
            )
    except OSError as error:
        return replace(folder, writable=False, error=_said(error))


def _can(act: Callable[[], None], made: Path) -> bool:
    try:
        act()
    except (OSError, NotImplementedError):
        return False
    # Some systems say yes and make nothing.
    return os.path.lexists(made)


def _said(error: OSError) -> str:
    return error.strerror or str(error)


def _file_system(folder: Path) -> str:
    if sys.platform == "win32":
        from sdsetup.machine.readers import windows

        return windows.file_system(folder)
    if sys.platform == "darwin":
        return ""
    return _mounted(folder.resolve())


def _mounted(folder: Path, table: Path = Path("/proc/self/mountinfo")) -> str:
    """Find the type of the mount that holds a folder; the last of equal ones hides the others."""
    best, kind = "", ""
    try:
        lines = table.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    for line in lines:
        fields, _, after = line.partition(" - ")
        point = fields.split(" ")[4].replace("\\040", " ")
        if folder.is_relative_to(point) and len(point) >= len(best):
            best, kind = point, after.split(" ", 1)[0]
    return kind

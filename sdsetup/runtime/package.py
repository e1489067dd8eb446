"""Open a package to make images with it."""

from __future__ import annotations

from pathlib import Path

from conversions.package.layout import (
    MANIFEST,
    FileRecord,
    Package,
    open_package,
    torn,
)
from sdsetup.bootstrap.command_name import quoted
from sdsetup.errors import SetupError

# Systems keep times of one file at different resolutions: Linux at 1 ns, Windows at 100 ns.
_TIME_RESOLUTION_NS = 1_000_000

_NEEDED = ("text", "denoiser", "decoder")
"""Roles that every image takes; an encoder is only for images that start from one."""


def open_for_images(folder: Path) -> Package:
    """Open a package and check that nothing needed to make images is missing.

    Hashes are for ``sdsetup verify``; here the files' presence and sizes are checked, which takes no time.

    Raises:
        SetupError: There is no package.
        ConversionError: It is torn, or its pipeline is of no known family.
    """
    if not folder.is_dir():
        raise SetupError(
            "package.missing",
            f"there is no package at {folder}.",
            f"make one: sdsetup convert MODEL --output {quoted(str(folder))}",
        )
    if not (folder / MANIFEST).is_file():
        checkpoint = (folder / "model_index.json").is_file()
        raise SetupError(
            "package.no_manifest",
            f"{folder} is {'a checkpoint, not a' if checkpoint else 'no'} package: it has no {MANIFEST}.",
            f"convert it first: sdsetup convert {quoted(str(folder))}"
            if checkpoint
            else "give a package's folder, or make a package: sdsetup convert MODEL",
        )
    package = open_package(folder)
    for part in package.family.parts:
        if part.role in _NEEDED and not part.optional and part.name not in package.submodel_names:
            raise torn(folder, f"{part.name} is missing")
    whole = {package.graph(name).relative_to(folder).as_posix() for name in package.submodel_names}
    whole.update(file for name in package.submodel_names for file in package.weight_files(name))
    for name, expected in package.files.items():
        _check_file(folder, name, expected, whole=name in whole)
    for name, link in package.manifest.get("linked", {}).items():
        _check_link(folder, name, link["file"], link["modified_ns"])
    return package


def _check_file(folder: Path, name: str, expected: FileRecord, *, whole: bool) -> None:
    """Check that a file is there, and that graphs and weights are whole; small files may be edited."""
    try:
        size = (folder / name).stat().st_size
    except OSError as error:
        raise torn(folder, f"{name} is missing") from error
    if whole and size != expected.size_bytes:
        raise torn(folder, f"{name} has {size} bytes instead of {expected.size_bytes}")


def _check_link(folder: Path, name: str, source: str, modified_ns: int) -> None:
    """Check that a file shared with the checkpoint by a hard link was not changed with it.

    A copy of the package shares nothing any more, so its files' times mean nothing.
    """
    found = (folder / name).stat()
    if found.st_nlink > 1 and abs(found.st_mtime_ns - modified_ns) > _TIME_RESOLUTION_NS:
        raise SetupError(
            "package.link_changed",
            f"{folder / name} is the checkpoint's own file {source} by a link, "
            "and it was changed after the conversion.",
            "convert the checkpoint again; --copy makes a package that shares no file.",
        )

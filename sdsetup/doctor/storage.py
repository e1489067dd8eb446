"""Checks of the places that are written to."""

from __future__ import annotations

from sdsetup.doctor import shell
from sdsetup.doctor.finding import Fix, Verdict, failure, ok, skipped, warning
from sdsetup.doctor.registry import CheckContext, check
from sdsetup.doctor.shell import size
from sdsetup.machine.facts import Folder

_FAT = {"vfat", "msdos", "fat", "fat12", "fat16", "fat32"}
# Source: Win32's MAX_PATH, one of them the ending zero.
_LONGEST_PATH = 259
# The Hub's cache: models--OWNER--NAME/snapshots/COMMIT/COMPONENT/FILE.
_CACHE_PATH_LENGTH = 150


def _elsewhere(context: CheckContext, folder: Folder) -> Fix:
    example = "D:\\sdsetup" if context.machine.platform == "win32" else "/path/with/space"
    if folder.variable:
        command = shell.set_variable(context, folder.variable, example)
    else:
        command = shell.sdsetup(context, "convert", context.purpose.model or "MODEL", "--output", example)
    decides = f", which {folder.set_by} decides" if folder.set_by else ""
    says = f"Free some space, or put the {_NAMES[folder.role]} elsewhere{decides}"
    return Fix(says=says, commands=(command,))


_NAMES = {"cache": "downloads", "output": "results", "temp": "temporary files"}


def _space(context: CheckContext, role: str, needed: int) -> Verdict:
    folder = context.folder(role)
    if folder.free_bytes is None:
        return skipped(f"{folder.path}: {folder.error or 'the system does not tell how much is free'}")
    seen = f"{size(folder.free_bytes)} free at {folder.probed}"
    if context.purpose.unknown and role != "temp":
        return skipped(f"{seen}; what {context.purpose.model} needs is not known, see model.plan")
    wanted = f"{size(needed)} are wanted for {context.purpose.basis}"
    if folder.free_bytes < needed:
        return failure(f"{seen}; {wanted}", _elsewhere(context, folder))
    if folder.free_bytes < 1.2 * needed:
        return warning(f"{seen}, which is tight; {wanted}", _elsewhere(context, folder))
    return ok(f"{seen}; {wanted}")


@check(
    "storage.cache-space",
    "Space for downloads",
    why="A checkpoint of Stable Diffusion is 2 to 7 GB; a full disk ends the download.",
    reads="folders machine plan",
    kinds=frozenset({"anything", "convert"}),
)
def cache_space(context: CheckContext) -> Verdict:
    """Compare free space where downloads go with the model's size."""
    return _space(context, "cache", context.purpose.cache_bytes)


@check(
    "storage.output-space",
    "Space for results",
    why="A package is written whole before it replaces an older one.",
    reads="folders machine plan",
)
def output_space(context: CheckContext) -> Verdict:
    """Compare free space where results go with the result's size."""
    return _space(context, "output", context.purpose.output_bytes)


@check(
    "storage.temp-space",
    "Space for temporary files",
    why="pip unpacks wheels there, and libraries expect to be able to write.",
    reads="folders machine",
)
def temp_space(context: CheckContext) -> Verdict:
    """Compare free space for temporary files with what is unpacked there."""
    return _space(context, "temp", context.purpose.temp_bytes)


@check(
    "storage.writable",
    "Writing",
    why="Downloads, results and temporary files all must be written somewhere.",
    reads="folders machine",
)
def writable(context: CheckContext) -> Verdict:
    """See whether a file could really be written to each place."""
    refused = [folder for folder in context.folders if folder.writable is False]
    if refused:
        seen = "; ".join(
            f"{_NAMES[folder.role]}: {folder.path}{f' (by {folder.set_by})' if folder.set_by else ''}:"
            f" {folder.error}"
            for folder in refused
        )
        return failure(f"cannot write {seen}", _elsewhere(context, refused[0]))
    return ok(f"a file was written in each of {', '.join(folder.probed for folder in context.folders)}")


@check(
    "storage.file-system",
    "File systems",
    why="FAT32 holds no file of 4 GB, and a UNet in fp32 is 3.4 GB, an XL one 10 GB.",
    reads="folders machine",
)
def file_system(context: CheckContext) -> Verdict:
    """Find file systems that cannot hold big files."""
    small = [
        folder for folder in context.folders if folder.file_system.lower() in _FAT and folder.role != "temp"
    ]
    if small:
        seen = ", ".join(f"{folder.probed} is {folder.file_system}" for folder in small)
        return warning(f"{seen}: no file of 4 GB, no links", _elsewhere(context, small[0]))
    seen = ", ".join(
        f"{folder.role} on {folder.file_system or 'an unnamed one'}"
        f"{'' if folder.case_sensitive is not False else ' (upper and lower case are one)'}"
        f"{'' if folder.hard_links is not False else ' (no hard links)'}"
        for folder in context.folders
    )
    return ok(seen)


@check(
    "storage.symlinks",
    "Symbolic links in the cache",
    why="The Hub's cache links revisions to one copy of a file; without links each revision is a full copy.",
    reads="folders machine",
    kinds=frozenset({"anything", "convert"}),
)
def symlinks(context: CheckContext) -> Verdict:
    """See whether a symbolic link could really be made in the cache."""
    folder = context.folder("cache")
    if folder.symlinks is None:
        return skipped(f"{folder.path} cannot be written to, so nothing was tried")
    if folder.symlinks:
        return ok(f"one was made at {folder.probed}")
    if context.machine.platform == "win32":
        fix = Fix(
            says="Turn on Developer Mode, which lets ordinary accounts make links",
            commands=("start ms-settings:developers",),
        )
    else:
        fix = _elsewhere(context, folder)
    return warning(f"none can be made at {folder.probed}; two revisions of a model take twice the space", fix)


@check(
    "storage.paths",
    "Characters in paths",
    why="sdsetup handles spaces and any letters; some other programs that you may point at its files do not.",
    reads="folders python machine",
)
def paths(context: CheckContext) -> Verdict:
    """Note spaces and letters outside ASCII; junk that cannot be written down at all is a problem."""
    named = [context.python.executable, *(folder.path for folder in context.folders)]
    unwritable = [path for path in named if not _is_unicode(path)]
    if unwritable:
        return warning(
            f"{unwritable[0]!r} holds bytes that are no text",
            Fix(says="Rename that folder, or put results elsewhere with --output"),
        )
    unusual = [path for path in named if " " in path or not path.isascii()]
    if unusual:
        return ok(f"{len(unusual)} with spaces or letters outside ASCII, which sdsetup handles: {unusual[0]}")
    return ok("plain")


def _is_unicode(path: str) -> bool:
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


@check(
    "storage.path-length",
    "Path length left",
    why="Without long paths Windows opens no file whose path is longer than 259 characters.",
    reads="folders machine",
)
def path_length(context: CheckContext) -> Verdict:
    """Add the longest name that the cache makes to where it lies."""
    if context.machine.platform != "win32":
        return skipped("only Windows limits the length of paths to 259 characters")
    if context.machine.long_paths:
        return ok("long paths are enabled")
    folder = context.folder("cache")
    longest = len(folder.path) + _CACHE_PATH_LENGTH
    seen = (
        f"the cache's path has {len(folder.path)} characters, its files' about {longest} of {_LONGEST_PATH}"
    )
    if longest <= _LONGEST_PATH:
        return ok(seen)
    command = shell.set_variable(context, folder.variable or "HF_HOME", "C:\\hf")
    return failure(seen, Fix(says="Put downloads under a short path", commands=(command,)))

"""New files that never take the place of others, whatever another process does at the same time."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from sdsetup import os_errors
from sdsetup.disk_space import human_size
from sdsetup.errors import SetupError


def write(path: Path, content: bytes, *, overwrite: bool = False) -> None:
    """Write a file whole or not at all.

    Args:
        path: Where to; its folder is made if it is not there.
        content: All of it.
        overwrite: Whether a file of that name is replaced.

    Raises:
        FileExistsError: The name is taken, and ``overwrite`` is not set.
        OSError: It cannot be written.
    """
    _make_folder(path.parent)
    unfinished = path.with_name(f".sdsetup-{os.getpid()}-{secrets.token_hex(3)}.part")
    try:
        with _named_for(path, unfinished):
            _write(path, unfinished, content, overwrite=overwrite)
    finally:
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)


def _write(path: Path, unfinished: Path, content: bytes, *, overwrite: bool) -> None:
    with unfinished.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())  # network folders and quotas may refuse only now
    if overwrite:
        unfinished.replace(path)
    else:
        _publish(unfinished, path)


@contextlib.contextmanager
def _named_for(path: Path, internal: Path) -> Iterator[None]:
    """Let errors name what a person knows: the file, or its folder where no file may be made."""
    try:
        yield
    except OSError as error:
        making = error.filename == str(internal) and error.filename2 is None
        refused = isinstance(error, PermissionError) or error.errno == errno.EROFS
        error.filename, error.filename2 = str(path.parent if making and refused else path), None
        raise


def names_after(path: Path) -> Iterator[Path]:
    """Yield a path and then the same with -2, -3 and so on before its suffix."""
    yield path
    count = 1
    while True:
        count += 1
        yield path.with_stem(f"{path.stem}-{count}")


def free_name(path: Path) -> Path:
    """Return the first of ``names_after`` that nothing has yet."""
    return next(name for name in names_after(path) if not os.path.lexists(name))


def write_beside(path: Path, content: bytes) -> Path:
    """Write a file under the first free name of ``names_after``.

    Returns:
        The name that it got.

    Raises:
        OSError: It cannot be written.
    """
    for name in names_after(path):
        with contextlib.suppress(FileExistsError):
            write(name, content)
            return name
    raise AssertionError  # names never end


def demand_room(paths: Sequence[Path], largest_bytes: int) -> None:
    """See before long work that files can be written: their names, their folder, its space, and limits.

    Args:
        paths: The files, all of one folder, which is made if it is not there.
        largest_bytes: The most that one of them can take.

    Raises:
        SetupError: Something stands in the way.
        OSError: The folder cannot be made, or a file of that name cannot.
    """
    folder = paths[0].parent
    _make_folder(folder)
    for path in paths:
        _try_name(path)
    free = shutil.disk_usage(folder).free
    if largest_bytes * len(paths) > free:
        raise SetupError(
            "disk.full",
            f"{human_size(largest_bytes * len(paths))} are needed in {folder.absolute()}, and "
            f"{human_size(free)} are free.",
            "free some space, or choose a folder on another disk with --output.",
        )
    limit = _file_size_limit()
    if limit is not None and largest_bytes > limit:
        explained = os_errors.explain(OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(paths[0])))
        raise SetupError(
            explained.code,
            f"{paths[0]} may take {human_size(largest_bytes)}, and files may have {human_size(limit)} here.",
            explained.hint,
        )


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:  # which would say that the name of the file itself is taken
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder)) from error


def _try_name(path: Path) -> None:
    """Create a file whose name is as long as that of ``path``, and remove it."""
    trial = path.with_suffix(path.suffix[:1] + "t" * len(path.suffix[1:]))
    with contextlib.suppress(FileExistsError), _named_for(path, trial):  # one that is taken is possible
        os.close(os.open(trial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        trial.unlink()


def _publish(unfinished: Path, path: Path) -> None:
    """Give a file its name in one step that fails when the name is taken."""
    if os.name == "nt":
        unfinished.rename(path)  # which never replaces there
        return
    try:
        path.hardlink_to(unfinished)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links: take the name first
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        unfinished.replace(path)


def _file_size_limit() -> int | None:
    try:
        import resource
    except ImportError:
        return None
    soft, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    return None if soft == resource.RLIM_INFINITY else soft

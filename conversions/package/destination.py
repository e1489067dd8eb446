"""The destination of a package: whether one may be put there, and a lock while it is built."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from conversions.errors import ConversionError
from conversions.package.layout import MANIFEST


def demand_place(output: Path, *, overwrite: bool) -> None:
    """See that a package may be put somewhere.

    Raises:
        ConversionError: Something is there that is not replaced.
    """
    demand_elsewhere(output)
    if output.exists() and not output.is_dir():
        raise ConversionError("package.not_a_folder", f"{output} is a file.")
    if output.exists() and any(output.iterdir()) and not (output / MANIFEST).is_file():
        raise ConversionError(
            "package.foreign", f"{output} holds files that are not a package; it is not replaced."
        )
    if output.exists() and not overwrite:
        raise ConversionError("package.exists", f"{output} already exists.")


def demand_elsewhere(output: Path) -> None:
    """See that a package does not go where the current folder is.

    It arrives by a rename: who stands in what it replaces would stand in a deleted folder.

    Raises:
        ConversionError: ``package.here``.
    """
    try:
        here = Path.cwd().resolve()
    except FileNotFoundError:  # it was deleted meanwhile, which a path from the root can do without
        return
    place = output.resolve()
    if not place.name or place == here or place in here.parents:  # another drive's root is in no parents
        raise ConversionError("package.here", f"{output} is the folder that you are in, or holds it.")


@contextlib.contextmanager
def reserved(output: Path, *, overwrite: bool) -> Iterator[None]:
    """Lock the destination of a package while it is built.

    Raises:
        ConversionError: It exists, is in use by another run, or cannot be written.
    """
    demand_place(output, overwrite=overwrite)
    lock = output.with_name(f".{output.name}.lock")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(lock, timeout=0):
            old = output.with_name(f".{output.name}.old")
            if old.exists() and not output.exists():
                old.rename(output)  # a run was killed between two renames: restore the old package
                demand_place(output, overwrite=overwrite)
            yield
    except Timeout as error:
        raise ConversionError("package.busy", f"Another run is writing {output}.") from error
    except PermissionError as error:
        # The names in here are the program's own.
        inside = error.filename is None or f".{output.name}." in str(error.filename)
        place = output.absolute().parent if inside else error.filename
        raise ConversionError("package.read_only", f"{place} cannot be written.") from error
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise ConversionError(
            "package.disk_full",
            f"The disk of {output.parent} is full; what was finished is kept for the next run.",
        ) from error
    finally:
        with contextlib.suppress(OSError):
            lock.unlink()

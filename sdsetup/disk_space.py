"""Check free disk space on every volume that will be written to."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from sdsetup.errors import SetupError

# Bytes to leave free for the system and other programs.
_RESERVE_BYTES = 256 * 2**20


def require(needs: Iterable[tuple[Path, int]]) -> None:
    """Check that several writes fit at the same time.

    Args:
        needs: Pairs of a folder, which need not exist yet, and the bytes to be written below it.
            Folders on one volume share its free space.

    Raises:
        SetupError: ``disk.full``, naming the volume, what is needed and what is free.
    """
    volumes: dict[int, tuple[Path, int]] = {}
    for folder, wanted in needs:
        place = _existing(folder)
        device = place.stat().st_dev
        known = volumes.get(device, (place, 0))
        volumes[device] = (known[0], known[1] + wanted)
    for place, wanted in volumes.values():
        free = shutil.disk_usage(place).free
        if wanted and wanted + _RESERVE_BYTES > free:
            raise SetupError(
                "disk.full",
                f"{human_size(wanted)} are needed on the disk of {place}, and "
                f"{human_size(_RESERVE_BYTES)} to spare; {human_size(free)} are free.",
                "Free some space, or move the cache (HF_HOME) or the output to another disk.",
            )


def same_volume(first: Path, second: Path) -> bool:
    """Say whether two paths, which need not exist yet, are on one volume.

    The folders are compared: an overlay, such as a container's disk, gives its files other device numbers.
    """
    return _folder_of(first).stat().st_dev == _folder_of(second).stat().st_dev


def human_size(size_bytes: float) -> str:
    """Format a size in binary units.

    >>> human_size(3_438_167_540)
    '3.2 GiB'
    """
    for unit in ("B", "KiB", "MiB"):
        if size_bytes < 1024:
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1024
    return f"{size_bytes:.1f} GiB"


def _folder_of(path: Path) -> Path:
    place = _existing(path).resolve()
    return place.parent if place.is_file() else place


def _existing(folder: Path) -> Path:
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    return place

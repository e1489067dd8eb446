"""Whether installed distributions are whole: every file of each against the list that pip wrote.

Standard library only.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import os
from pathlib import Path

from sdsetup.bootstrap import known_good

# A file that changed after its distribution was installed is read in whole.
_SAME_TIME_SECONDS = 2.0
# An organisation adds its own certificates to this list, which only grows by it.
_CERTIFICATES = "certifi/cacert.pem"


def installed(place: Path) -> dict[str, list[Path]]:
    """List the ``*.dist-info`` folders of a folder of packages by normalized distribution name."""
    found: dict[str, list[Path]] = {}
    try:
        folders = sorted(place.glob("*.dist-info"))
    except OSError:
        return found
    for folder in folders:
        name = known_good.normalized(folder.name.partition("-")[0])
        if not folder.name.startswith("~"):  # what pip left behind when it was interrupted
            found.setdefault(name, []).append(folder)
    return found


def version(folder: Path) -> str:
    """Read a distribution's version from its folder's name."""
    return folder.name.removesuffix(".dist-info").partition("-")[2]


def unreadable(place: Path) -> list[Path]:
    """List the descriptions of distributions that pip can not read, or can not remove whole.

    Without its list of files pip refuses to touch a distribution; of two versions at once it sees one; and
    what an interrupted pip had not listed yet, as scripts, it leaves behind.
    """
    return [
        folder
        for folders in installed(place).values()
        for folder in folders
        if len(folders) > 1 or not (folder / "METADATA").is_file() or not _is_finished(folder, _rows(folder))
    ]


def _rows(folder: Path) -> list[list[str]]:
    """Read the list of files: path, digest and size of each; empty where there is none that can be read."""
    try:
        return list(csv.reader((folder / "RECORD").read_text(encoding="utf-8").splitlines()))
    except (OSError, ValueError, csv.Error):
        return []


def _is_finished(folder: Path, rows: list[list[str]]) -> bool:
    """Tell whether the list is an installer's, not the wheel's: those write INSTALLER last, and list it."""
    return any(row[:1] == [f"{folder.name}/INSTALLER"] for row in rows)


def torn(place: Path) -> dict[str, str]:
    """Say what is wrong with the distributions of a folder of packages, by normalized name.

    A distribution is torn when a file of it is gone or has another size, or was changed since and has other
    contents, or when its installation did not come to its end. Caches and scripts come and go and do not
    count.

    Args:
        place: The folder, usually ``site-packages``.
    """
    found: dict[str, str] = {}
    folders: dict[str, dict[str, tuple[int, float]]] = {}
    for name, infos in installed(place).items():
        if len(infos) > 1:
            found[name] = f"versions {' and '.join(map(version, infos))} are installed over each other"
            continue
        wrong = _wrong(place, infos[0], folders)
        if wrong:
            found[name] = wrong
    return found


def _wrong(place: Path, folder: Path, folders: dict[str, dict[str, tuple[int, float]]]) -> str:
    rows = _rows(folder)
    if not rows:
        return f"{folder.name} has no list of its files"
    written = (folder / "RECORD").stat().st_mtime
    missing = changed = count = 0
    example = ""
    for file, digest, size in (row for row in rows if len(row) == 3):
        if file.startswith(("..", "/")) or file.endswith(".pyc"):
            continue
        count += 1
        inside, _, base = file.rpartition("/")
        if inside not in folders:
            folders[inside] = _sizes(place / inside)
        seen = folders[inside].get(base)
        if seen is None:
            missing += 1
        elif file.endswith(_CERTIFICATES) and size.isdigit() and seen[0] >= int(size):
            continue
        elif (size.isdigit() and seen[0] != int(size)) or (
            digest and seen[1] > written + _SAME_TIME_SECONDS and not _matches(place / file, digest)
        ):
            changed += 1
        else:
            continue
        example = example or file
    if not count or not (folder / "METADATA").is_file():
        return f"{folder.name} does not say what it is"
    if not missing and not changed:
        return "" if _is_finished(folder, rows) else "its installation was interrupted"
    return f"of {count} files {missing} are missing and {changed} are not what was installed: {example}"


def _matches(path: Path, digest: str) -> bool:
    algorithm, _, expected = digest.partition("=")
    try:
        with path.open("rb") as file:
            seen = hashlib.file_digest(file, algorithm).digest()
    except (OSError, ValueError):
        return False
    return base64.urlsafe_b64encode(seen).decode().rstrip("=") == expected


def _sizes(folder: Path) -> dict[str, tuple[int, float]]:
    """List a folder's files with sizes and times; Windows gives all at once, which saves a look at each."""
    try:
        with os.scandir(folder) as entries:
            looks = [(entry.name, entry.stat()) for entry in entries if entry.is_file()]
    except OSError:
        return {}
    return {name: (look.st_size, look.st_mtime) for name, look in looks}

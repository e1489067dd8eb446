"""What is installed for this Python, and whether the important ones are whole."""

from __future__ import annotations

import csv
import os
import sys
from pathlib import Path

from sdsetup.bootstrap import known_good
from sdsetup.bootstrap.installer import FLAVOUR_DISTRIBUTIONS
from sdsetup.machine.facts import Packages, Questions

# A torn one of these breaks sdsetup; looking at every file of every distribution would take seconds.
_IMPORTANT = frozenset(
    {
        *("typer", "rich", "click", "huggingface-hub", "numpy", "safetensors", "onnx", "onnx-ir", "psutil"),
        *("platformdirs", "pillow", "tokenizers", "diffusers", "onnxscript", "ml-dtypes", "protobuf"),
        *FLAVOUR_DISTRIBUTIONS.values(),
    }
)


def read(_questions: Questions) -> Packages:
    """List the distributions, and the torn ones among the important.

    The folders' names hold all that is wanted; ``importlib.metadata`` would parse every METADATA file.
    """
    versions: dict[str, str] = {}
    torn: dict[str, str] = {}
    for place in map(Path, sys.path):
        try:
            folders = sorted(place.glob("*.dist-info"))
        except OSError:
            continue
        for folder in folders:
            name, _, version = folder.name.removesuffix(".dist-info").partition("-")
            name = known_good.normalized(name)
            if name in versions:  # the first on the path is the one that is imported
                continue
            versions[name] = version
            missing = _missing_files(place, folder) if name in _IMPORTANT else ""
            if missing:
                torn[name] = missing
    return Packages(versions=versions, torn=torn)


def _missing_files(place: Path, folder: Path) -> str:
    """Say what is wrong with a distribution's files; empty when nothing is."""
    missing = shorter = count = 0
    example = ""
    try:
        rows = list(csv.reader((folder / "RECORD").read_text(encoding="utf-8").splitlines()))
    except OSError:
        return f"{folder.name} has no list of its files"
    folders: dict[str, dict[str, int]] = {}
    for name, _, size in (row for row in rows if len(row) == 3):
        if name.startswith("..") or name.endswith(".pyc"):  # scripts and caches come and go
            continue
        count += 1
        inside, _, file = name.rpartition("/")
        if inside not in folders:
            folders[inside] = _sizes(place / inside)
        seen = folders[inside].get(file)
        if seen is None:
            missing += 1
        elif not size or seen >= int(size):
            continue
        else:
            shorter += 1
        example = example or name
    if not missing and not shorter:
        return ""
    return f"of {count} files {missing} are missing and {shorter} are cut short, for example {example}"


def _sizes(folder: Path) -> dict[str, int]:
    """List a folder's files with their sizes; Windows gives both at once, which saves a look at each."""
    try:
        with os.scandir(folder) as entries:
            return {entry.name: entry.stat().st_size for entry in entries}
    except OSError:
        return {}

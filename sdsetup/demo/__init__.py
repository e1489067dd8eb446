"""The checkpoint that comes with the program: it draws simple shapes, and its images can be judged."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

ORIGIN = "demo"
"""What a package made from it names as its checkpoint's origin."""

CAPTIONS: tuple[tuple[str, int], ...] = (
    ("a red circle on a blue background", 1),
    ("two green triangles on a white background", 2),
    ("a large yellow star on a purple background", 1),
    ("a small black square left of a large orange circle on a white background", 1),
)
"""Captions and seeds that the smoke test asks for."""


def checkpoint_path() -> Path:
    """Return the folder of the checkpoint, in the diffusers layout."""
    return Path(__file__).parent / "checkpoint"


def made_of_demo(weights: Mapping[str, str]) -> bool:
    """Say whether a package was made of these very weights, so that it must draw what its captions say.

    Args:
        weights: SHA-256 of each weight file that the package was made of, by its name in the checkpoint.
    """
    files = {name: checkpoint_path() / name for name in weights}
    return bool(files) and all(
        path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == weights[name]
        for name, path in files.items()
    )

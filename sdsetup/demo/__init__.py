"""The demo checkpoint that ships with sdsetup: it makes images of simple shapes, which can be judged."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

ORIGIN = "demo"
"""Checkpoint origin in the manifest of a package made from it."""

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
    """Whether a package was made from the demo's weights, so that its images can be judged.

    Args:
        weights: SHA-256 of each weight file that the package was made from, by its path in the checkpoint.
    """
    files = {name: checkpoint_path() / name for name in weights}
    return bool(files) and all(
        path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == weights[name]
        for name, path in files.items()
    )

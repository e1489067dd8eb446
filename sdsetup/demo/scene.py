"""Detect the background and the shapes of a demo image from its pixels.

The background is the most frequent colour. A thing is a connected component of pixels that differ from it.
How much of a pixel a thing covers is interpolated between the background's colour and the thing's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sdsetup.demo.geometry import Outline, outline, shape_of

PALETTE: dict[str, tuple[int, int, int]] = {
    "red": (214, 40, 40),
    "orange": (247, 140, 30),
    "yellow": (250, 220, 50),
    "green": (40, 150, 60),
    "blue": (40, 90, 215),
    "purple": (125, 40, 170),
    "pink": (250, 150, 200),
    "white": (250, 250, 250),
    "gray": (128, 128, 128),
    "black": (15, 15, 15),
}
"""Colours that captions can name, as sRGB bytes."""

UNKNOWN = "unknown"
_COLOUR_TOLERANCE = 55.0
_PATCH_CONTRAST = 40.0
_LEAST_AREA = 20.0


@dataclass(frozen=True, kw_only=True)
class Thing:
    """One detected shape.

    Attributes:
        colour: A name of ``PALETTE``, or "unknown".
        shape: A shape's name, or "unknown".
        x: Centre in pixels from the left edge.
        y: Centre in pixels from the top edge.
        radius: Distance in pixels from the centre to the outermost point.
    """

    colour: str
    shape: str
    x: float
    y: float
    radius: float

    def __str__(self) -> str:
        return f"{self.colour} {self.shape} of radius {self.radius:.0f} at ({self.x:.0f}, {self.y:.0f})"


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Result of the detection: the background's colour name and the things, from left to right."""

    background: str
    things: tuple[Thing, ...]


def detect_scene(image: NDArray[np.uint8]) -> Scene:
    """Detect the background and the things of an image.

    Args:
        image: sRGB, uint8 ``[height, width, 3]``.
    """
    pixels = image.astype(np.float64)
    ground = _dominant_colour(pixels)
    patches = _connected_components(np.linalg.norm(pixels - ground, axis=-1) > _PATCH_CONTRAST)
    seen = [_thing(pixels, ground, patch) for patch in patches]
    things = sorted((thing for thing in seen if thing is not None), key=lambda thing: thing.x)
    return Scene(background=colour_name(ground), things=tuple(things))


def colour_name(colour: NDArray[np.float64]) -> str:
    """Return the nearest colour's name, or "unknown" when none is near."""
    distances = {name: float(np.linalg.norm(colour - np.array(rgb))) for name, rgb in PALETTE.items()}
    nearest = min(distances, key=distances.__getitem__)
    return nearest if distances[nearest] <= _COLOUR_TOLERANCE else UNKNOWN


def _dominant_colour(pixels: NDArray[np.float64]) -> NDArray[np.float64]:
    """Find the most frequent cell of a coarse colour histogram, then take the median near it."""
    cells = (pixels // 32).astype(np.int64)
    keys = (cells[..., 0] * 8 + cells[..., 1]) * 8 + cells[..., 2]
    fullest = np.bincount(keys.ravel()).argmax()
    first_guess = np.median(pixels[keys == fullest], axis=0)
    near = np.linalg.norm(pixels - first_guess, axis=-1) < _PATCH_CONTRAST
    return np.asarray(np.median(pixels[near], axis=0))


def _thing(
    pixels: NDArray[np.float64], ground: NDArray[np.float64], patch: NDArray[np.bool_]
) -> Thing | None:
    """Measure one component; None when it is too small."""
    contrast = np.linalg.norm(pixels - ground, axis=-1)
    strongest = contrast >= 0.8 * np.quantile(contrast[patch], 0.75)
    colour = np.median(pixels[patch & strongest], axis=0)
    direction = (colour - ground) / np.sum((colour - ground) ** 2)
    coverage = np.where(_dilate(patch), np.clip((pixels - ground) @ direction, 0.0, 1.0), 0.0)
    if coverage.sum() < _LEAST_AREA:
        return None
    form: Outline = outline(coverage)
    return Thing(colour=colour_name(colour), shape=shape_of(form), x=form.x, y=form.y, radius=form.radius)


def _dilate(patch: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Dilate a mask by one pixel."""
    padded = np.pad(patch, 1)
    height, width = patch.shape
    shifts = [padded[dy : dy + height, dx : dx + width] for dy in range(3) for dx in range(3)]
    return np.asarray(np.logical_or.reduce(shifts))


def _connected_components(mask: NDArray[np.bool_]) -> list[NDArray[np.bool_]]:
    """Find 4-connected components by joining the runs of each row to those above."""
    parents: list[int] = []

    def root(run: int) -> int:
        while parents[run] != run:
            run = parents[run]
        return run

    labels = np.full(mask.shape, -1)
    for y, row in enumerate(mask):
        edges = np.flatnonzero(np.diff(np.pad(row, 1).astype(np.int8)))
        for begin, end in zip(edges[::2], edges[1::2], strict=True):
            run = len(parents)
            parents.append(run)
            labels[y, begin:end] = run
            above = labels[y - 1, begin:end] if y else np.array([-1])
            for neighbour in np.unique(above[above >= 0]):
                parents[root(int(neighbour))] = root(run)
    if not parents:
        return []
    roots = np.array([root(run) for run in range(len(parents))])
    patches = np.where(labels >= 0, roots[labels], -1)
    return [patches == label for label in np.unique(roots)]

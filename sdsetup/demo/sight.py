"""What is in a demo image, found by looking at its pixels: the background and the things on it.

Numpy only, and no drawing: an image is read the way a person with a ruler would. The background is the
colour that most pixels have. A thing is a connected patch that differs from it, and the share of a pixel
that a thing covers follows from how far the pixel lies on the way from the background's colour to the
thing's.
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
"""The colours that the demo's captions may name, as sRGB bytes."""

UNKNOWN = "unknown"
_COLOUR_TOLERANCE = 55.0
_PATCH_CONTRAST = 40.0
_LEAST_AREA = 20.0


@dataclass(frozen=True, kw_only=True)
class Thing:
    """One thing seen.

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
class Sight:
    """Everything seen in an image: the background's colour name and the things, from left to right."""

    background: str
    things: tuple[Thing, ...]


def look(image: NDArray[np.uint8]) -> Sight:
    """Find the background and the things of an image.

    Args:
        image: sRGB, uint8 ``[height, width, 3]``.
    """
    pixels = image.astype(np.float64)
    ground = _dominant_colour(pixels)
    patches = _patches(np.linalg.norm(pixels - ground, axis=-1) > _PATCH_CONTRAST)
    seen = [_thing(pixels, ground, patch) for patch in patches]
    things = sorted((thing for thing in seen if thing is not None), key=lambda thing: thing.x)
    return Sight(background=colour_name(ground), things=tuple(things))


def colour_name(colour: NDArray[np.float64]) -> str:
    """The nearest colour's name, or "unknown" when none is near."""
    distances = {name: float(np.linalg.norm(colour - np.array(rgb))) for name, rgb in PALETTE.items()}
    nearest = min(distances, key=distances.__getitem__)
    return nearest if distances[nearest] <= _COLOUR_TOLERANCE else UNKNOWN


def _dominant_colour(pixels: NDArray[np.float64]) -> NDArray[np.float64]:
    """The fullest cell of a coarse colour cube says where to look, the median around it says what."""
    cells = (pixels // 32).astype(np.int64)
    keys = (cells[..., 0] * 8 + cells[..., 1]) * 8 + cells[..., 2]
    fullest = np.bincount(keys.ravel()).argmax()
    first_guess = np.median(pixels[keys == fullest], axis=0)
    near = np.linalg.norm(pixels - first_guess, axis=-1) < _PATCH_CONTRAST
    return np.asarray(np.median(pixels[near], axis=0))


def _thing(
    pixels: NDArray[np.float64], ground: NDArray[np.float64], patch: NDArray[np.bool_]
) -> Thing | None:
    """Measure one patch; None when it is too small to be meant."""
    contrast = np.linalg.norm(pixels - ground, axis=-1)
    strongest = contrast >= 0.8 * np.quantile(contrast[patch], 0.75)
    colour = np.median(pixels[patch & strongest], axis=0)
    direction = (colour - ground) / np.sum((colour - ground) ** 2)
    coverage = np.where(_grown(patch), np.clip((pixels - ground) @ direction, 0.0, 1.0), 0.0)
    if coverage.sum() < _LEAST_AREA:
        return None
    form: Outline = outline(coverage)
    return Thing(colour=colour_name(colour), shape=shape_of(form), x=form.x, y=form.y, radius=form.radius)


def _grown(patch: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The patch and the pixels that touch it."""
    padded = np.pad(patch, 1)
    height, width = patch.shape
    shifts = [padded[dy : dy + height, dx : dx + width] for dy in range(3) for dx in range(3)]
    return np.asarray(np.logical_or.reduce(shifts))


def _patches(mask: NDArray[np.bool_]) -> list[NDArray[np.bool_]]:
    """Patches connected by sides of pixels: the runs of each row, joined to those above."""
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

"""Classify the shape of a component by its outline.

The outline is the distance from the centre in each direction. A circle's is constant; a triangle's
peaks three times per turn, a square's and a cross's four times (a cross's far higher), a star's five
times; its Fourier coefficients count the peaks, whatever the rotation. A ring is a circle with a
hole.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_DIRECTIONS = 120
_RAY_STEP = 0.25
_HOLE_SHARE = 0.06
_ROUND_UNEVENNESS = 0.045
_CROSS_UNEVENNESS = 0.17
_LEAST_UNEVENNESS = {"triangle": 0.15, "square": 0.07, "star": 0.15}
_DOMINANCE = 0.6


@dataclass(frozen=True, kw_only=True)
class Outline:
    """Outline of a component.

    Attributes:
        x: Centre, pixels from the left edge.
        y: Centre, pixels from the top edge.
        distances: From the centre to the edge in each direction, pixels, float64 ``[directions]``.
            Holes are filled.
        hole_share: Area of the holes as a share of the filled area.
    """

    x: float
    y: float
    distances: NDArray[np.float64]
    hole_share: float

    @property
    def radius(self) -> float:
        """Distance to the outermost points in pixels: the 95th percentile, as stray pixels count little."""
        return float(np.quantile(self.distances, 0.95))


def outline(coverage: NDArray[np.float64]) -> Outline:
    """Measure the outline of one component.

    Args:
        coverage: Share of each pixel that it covers, 0 to 1, float64 ``[height, width]``.
    """
    holes = _holes(coverage > 0.5)
    filled = np.where(holes, 1.0, coverage)
    rows, columns = np.indices(coverage.shape)
    area = filled.sum()
    x, y = float((filled * columns).sum() / area), float((filled * rows).sum() / area)
    angles = np.arange(_DIRECTIONS) * (2 * np.pi / _DIRECTIONS)
    reach = np.arange(0.0, np.hypot(*coverage.shape), _RAY_STEP)
    along = _interpolate(filled, x + np.outer(np.cos(angles), reach), y + np.outer(np.sin(angles), reach))
    return Outline(
        x=x + 0.5,
        y=y + 0.5,
        distances=along.sum(axis=1) * _RAY_STEP,
        hole_share=float(((1 - coverage) * holes).sum() / area),
    )


def shape_of(form: Outline) -> str:
    """Return the shape's name, or "unknown" for an outline of none of the six."""
    spectrum = np.abs(np.fft.rfft(form.distances)) / len(form.distances)
    unevenness = form.distances.std() / form.distances.mean()
    if unevenness < _ROUND_UNEVENNESS:
        return "ring" if form.hole_share > _HOLE_SHARE else "circle"
    if form.hole_share > _HOLE_SHARE:
        return "unknown"
    power = spectrum[1:13] ** 2
    corners = int(power.argmax()) + 1
    # A sharp outline's overtones belong to the same number of corners.
    if power[corners - 1 :: corners].sum() < _DOMINANCE * power.sum():
        return "unknown"
    if corners == 4 and unevenness > _CROSS_UNEVENNESS:
        return "cross"
    name = {3: "triangle", 4: "square", 5: "star"}.get(corners, "unknown")
    return name if unevenness >= _LEAST_UNEVENNESS.get(name, 0.0) else "unknown"


def _holes(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Find pixels outside the mask that are not connected to the image's border."""
    open_ground = np.pad(~mask, 1, constant_values=True)
    reached = np.zeros_like(open_ground)
    reached[0, 0] = True
    while True:
        spread = reached.copy()
        spread[1:] |= reached[:-1]
        spread[:-1] |= reached[1:]
        spread[:, 1:] |= reached[:, :-1]
        spread[:, :-1] |= reached[:, 1:]
        spread &= open_ground
        if (spread == reached).all():
            return np.asarray((open_ground & ~reached)[1:-1, 1:-1])
        reached = spread


def _interpolate(
    values: NDArray[np.float64], x: NDArray[np.float64], y: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Interpolate bilinearly at fractional coordinates; zero outside."""
    padded = np.pad(values, 1)
    height, width = values.shape
    x, y = np.clip(x + 1, 0, width + 0.999), np.clip(y + 1, 0, height + 0.999)
    left, top = x.astype(np.int64), y.astype(np.int64)
    across, down = x - left, y - top
    upper = padded[top, left] * (1 - across) + padded[top, left + 1] * across
    lower = padded[top + 1, left] * (1 - across) + padded[top + 1, left + 1] * across
    return np.asarray(upper * (1 - down) + lower * down)

"""The six shapes as signed distances, and their anti-aliased drawing on any torch device.

A signed distance is negative inside. Every shape is centred on the origin and touches the circle of the
given radius with its outermost points, so that "size" means the same thing for all of them. Half a pixel
around zero becomes the soft edge: coverage is ``clamp(0.5 - distance, 0, 1)``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from types import MappingProxyType

import torch
from torch import Tensor

PIXELS = 128
"""Width and height of an image."""


def _circle(x: Tensor, y: Tensor, radius: Tensor) -> Tensor:
    return torch.hypot(x, y) - radius


def _ring(x: Tensor, y: Tensor, radius: Tensor) -> Tensor:
    return (torch.hypot(x, y) - 0.75 * radius).abs() - 0.25 * radius


def _square(x: Tensor, y: Tensor, radius: Tensor) -> Tensor:
    return torch.maximum(x.abs(), y.abs()) - radius * math.sqrt(0.5)


def _triangle(x: Tensor, y: Tensor, radius: Tensor) -> Tensor:
    slanted = y.abs() * math.sin(math.pi / 3) + x * math.cos(math.pi / 3)
    return torch.maximum(slanted, -x) - radius * 0.5


def _star(x: Tensor, y: Tensor, radius: Tensor) -> Tensor:
    """Five points; the inner corners lie at 0.45 of the radius. All ten edges fold onto one."""
    sector = 2 * math.pi / 5
    angle = torch.atan2(y, x).remainder(sector)
    angle = torch.minimum(angle, sector - angle)
    reach = torch.hypot(x, y)
    inner = 0.45
    run, rise = inner * math.cos(sector / 2) - 1, inner * math.sin(sector / 2)
    length = math.hypot(run, rise)
    along, across = reach * torch.cos(angle) - radius, reach * torch.sin(angle)
    return (along * rise - across * run) / length


def _cross(x: Tensor, y: Tensor, radius: Tensor) -> Tensor:
    arm = radius * (3 / math.sqrt(10))
    long_side, short_side = torch.maximum(x.abs(), y.abs()), torch.minimum(x.abs(), y.abs())
    return torch.maximum(long_side - arm, short_side - arm / 3)


SHAPES: MappingProxyType[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = MappingProxyType(
    {
        "circle": _circle,
        "square": _square,
        "triangle": _triangle,
        "star": _star,
        "cross": _cross,
        "ring": _ring,
    }
)


def coverage(kind: Tensor, centre: Tensor, radius: Tensor, angle: Tensor) -> Tensor:
    """Draw one shape per row.

    Args:
        kind: Index into ``SHAPES``, int64 ``[n]``.
        centre: Pixels, x then y, float32 ``[n, 2]``.
        radius: Pixels, float32 ``[n]``.
        angle: Radians, float32 ``[n]``.

    Returns:
        How much of each pixel is covered, 0 to 1, float32 ``[n, PIXELS, PIXELS]``.
    """
    axis = torch.arange(PIXELS, device=centre.device, dtype=torch.float32) + 0.5
    covered = torch.empty(len(kind), PIXELS, PIXELS, device=centre.device)
    for index, distance in enumerate(SHAPES.values()):
        rows = (kind == index).nonzero().squeeze(1)
        dx = axis[None, None, :] - centre[rows, 0, None, None]
        dy = axis[None, :, None] - centre[rows, 1, None, None]
        cosine, sine = angle[rows].cos()[:, None, None], angle[rows].sin()[:, None, None]
        signed = distance(dx * cosine + dy * sine, dy * cosine - dx * sine, radius[rows, None, None])
        covered[rows] = (0.5 - signed).clamp(0, 1)
    return covered

"""Fit an image into a time: how large, and in how many steps, judged by one step that was measured."""

from __future__ import annotations

import math
from dataclasses import dataclass

from conversions.recipe import ImageSize

# A decoder takes as long as one to three steps of its U-Net; opening the submodels comes to that.
_STEPS_BESIDE = 4
_FEWEST_STEPS = 8
# Below half the trained side, checkpoints show little that can be judged.
_SCALES = (1.0, 0.75, 0.5)
# Sides that every U-Net takes: eight pixels a latent, and three halvings.
_MULTIPLE = 64


@dataclass(frozen=True, kw_only=True)
class Effort:
    """An image's size and steps.

    Attributes:
        size: Its size.
        steps: Scheduler steps.
        seconds: How long it will take.
    """

    size: ImageSize
    steps: int
    seconds: float


def smallest(native: ImageSize, multiple: int) -> ImageSize:
    """Return the smallest size that is considered, at which a step is measured."""
    return _scaled(native, _SCALES[-1], multiple)


def fit(native: ImageSize, multiple: int, steps: int, step_seconds: float, limit_seconds: float) -> Effort:
    """Choose the largest size, and then the most steps, that a time allows.

    Args:
        native: The size that is wanted.
        multiple: Sides are multiples of this.
        steps: The steps that are wanted.
        step_seconds: Time of a step at the :func:`smallest` size; steps take longer as the area grows.
        limit_seconds: The time; where nothing fits, the smallest image in the fewest steps is chosen.
    """
    base = smallest(native, multiple)
    fewest = min(steps, _FEWEST_STEPS)
    for scale in _SCALES:
        size = _scaled(native, scale, multiple)
        each = step_seconds * size.width * size.height / (base.width * base.height)
        affordable = steps if each == 0 else math.floor(limit_seconds / each) - _STEPS_BESIDE
        if affordable >= fewest or size == base:
            count = max(fewest, min(steps, affordable))
            return Effort(size=size, steps=count, seconds=each * (count + _STEPS_BESIDE))
    raise AssertionError  # the last size is the base


def in_words(seconds: float) -> str:
    """Write a time for a person, roughly.

    >>> in_words(43.2), in_words(200)
    ('about 45 s', 'about 3 min')
    """
    if seconds < 90:
        return f"about {max(5, 5 * round(seconds / 5))} s"
    return f"about {round(seconds / 60)} min"


def _scaled(native: ImageSize, scale: float, multiple: int) -> ImageSize:
    step = math.lcm(multiple, _MULTIPLE)
    if scale == 1 or min(native.width, native.height) < 2 * step:
        return native
    return ImageSize(
        width=max(step, round(native.width * scale / step) * step),
        height=max(step, round(native.height * scale / step) * step),
    )

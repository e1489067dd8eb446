"""How far a training is, and its learning rate there."""

from __future__ import annotations

import math
from collections.abc import Callable

Progress = Callable[[int], float]
"""From the number of steps made to how far the training is; 1 and over means done."""


def by_steps(steps: int) -> Progress:
    """Done after so many steps."""
    return lambda step: step / steps


def pace(step: int, done: float, warmup_steps: int) -> float:
    """Learning rate as a share of its peak: a short climb, then half a cosine down to nothing."""
    return min(1.0, (step + 1) / warmup_steps) * 0.5 * (1 + math.cos(math.pi * done))

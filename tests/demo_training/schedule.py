"""The learning rate of every training here."""

from __future__ import annotations

import math


def pace(step: int, done: float, warmup_steps: int) -> float:
    """Learning rate as a share of its peak: a short climb, then half a cosine down to nothing."""
    return min(1.0, (step + 1) / warmup_steps) * 0.5 * (1 + math.cos(math.pi * done))

"""Which of the training timesteps a short trajectory visits.

Source: Lin et al. 2023, arXiv:2305.08891, table 2, names the three spacings; the rounding is that of
diffusers 0.42, ``set_timesteps`` in ``schedulers/scheduling_*.py``. Where "trailing" with some numbers of
steps gains a timestep -1 by a float64's last bit there, it does not here.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sdsetup.errors import UsageError
from sdsetup.imaging.schedulers.config import SchedulerConfig


def whole_timesteps(settings: SchedulerConfig, steps: int) -> NDArray[np.int64]:
    """Return falling timesteps as whole numbers, int64 ``[steps]``.

    Raises:
        UsageError: "leading" with an offset that shifts the first one beyond the training timesteps.
    """
    train = settings.num_train_timesteps
    if settings.timestep_spacing == "linspace":
        return np.linspace(0, train - 1, steps).round()[::-1].astype(np.int64)
    if settings.timestep_spacing == "leading":
        falling = (np.arange(steps) * (train // steps))[::-1].astype(np.int64) + settings.steps_offset
        if falling[0] >= train:
            raise UsageError(
                "scheduler.steps",
                f"--steps {steps} does not work: scheduler_config.json says steps_offset = "
                f"{settings.steps_offset}, which puts the first step beyond timestep {train - 1}.",
                "use another number of steps, or another --scheduler.",
            )
        return falling
    return np.arange(train, 0, -train / steps).round().astype(np.int64)[:steps] - 1


def real_timesteps(settings: SchedulerConfig, steps: int) -> NDArray[np.float32]:
    """Return falling timesteps, float32 ``[steps]``; fractions appear only with "linspace"."""
    if settings.timestep_spacing == "linspace":
        return np.linspace(0, settings.num_train_timesteps - 1, steps, dtype=np.float32)[::-1]
    return whole_timesteps(settings, steps).astype(np.float32)


def inner_timesteps(settings: SchedulerConfig, steps: int, end: int) -> NDArray[np.int64]:
    """Return falling timesteps, int64, of one more point than visited: the last is where the path ends.

    Args:
        settings: Says which spacing.
        steps: How many to return; fewer come where ``end`` cuts "trailing" short.
        end: How many of the training timesteps may be visited.
    """
    if settings.timestep_spacing == "linspace":
        return np.linspace(0, end - 1, steps + 1).round()[:0:-1].astype(np.int64)
    if settings.timestep_spacing == "leading":
        spaced = (np.arange(steps + 1) * (end // (steps + 1)))[:0:-1]
        return spaced.astype(np.int64) + settings.steps_offset
    falling = np.arange(end, 0, -settings.num_train_timesteps / steps).round()
    return falling.astype(np.int64)[:steps] - 1

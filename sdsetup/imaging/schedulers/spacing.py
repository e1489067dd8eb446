"""Which of the training timesteps a short trajectory visits.

Source: Lin et al. 2023, arXiv:2305.08891, table 2, names the three spacings; the rounding is that of
diffusers 0.42, ``set_timesteps`` in ``schedulers/scheduling_*.py``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sdsetup.imaging.schedulers.config import SchedulerConfig


def whole_timesteps(settings: SchedulerConfig, steps: int) -> NDArray[np.int64]:
    """Return falling timesteps as whole numbers, int64 ``[steps]``."""
    train = settings.num_train_timesteps
    if settings.timestep_spacing == "linspace":
        return np.linspace(0, train - 1, steps).round()[::-1].astype(np.int64)
    if settings.timestep_spacing == "leading":
        return (np.arange(steps) * (train // steps))[::-1].astype(np.int64) + settings.steps_offset
    return np.arange(train, 0, -train / steps).round().astype(np.int64)[:steps] - 1


def real_timesteps(settings: SchedulerConfig, steps: int) -> NDArray[np.float32]:
    """Return falling timesteps, float32 ``[steps]``; fractions appear only with "linspace"."""
    if settings.timestep_spacing == "linspace":
        return np.linspace(0, settings.num_train_timesteps - 1, steps, dtype=np.float32)[::-1]
    return whole_timesteps(settings, steps).astype(np.float32)

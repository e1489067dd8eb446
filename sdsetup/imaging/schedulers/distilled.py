"""The timesteps of models that were distilled to few steps: chosen among those of the distillation.

Source: Luo et al. 2023, arXiv:2310.04378, section 4.3; diffusers 0.42, ``set_timesteps`` in
``schedulers/scheduling_lcm.py`` and ``scheduling_tcd.py``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sdsetup.errors import UsageError
from sdsetup.imaging.schedulers import config
from sdsetup.imaging.schedulers.config import Field, SchedulerConfig
from sdsetup.imaging.schedulers.entry import Options


def distilled_timesteps(origin: NDArray[np.int64], steps: int) -> tuple[float, ...]:
    """Choose falling timesteps among those of the distillation.

    Args:
        origin: The distillation's timesteps, rising.
        steps: How many to choose.

    Raises:
        UsageError: More steps than the distillation has.
    """
    if steps > len(origin):
        raise UsageError(
            "scheduler.steps",
            f"--steps {steps} is out of range: this model was distilled for 1 to {len(origin)}.",
            "4 to 8 is usual.",
        )
    places = np.floor(np.linspace(0, len(origin), num=steps, endpoint=False)).astype(np.int64)
    return tuple(float(timestep) for timestep in origin[::-1][places])


def distillation(settings: SchedulerConfig, options: Options) -> NDArray[np.int64]:
    """Return the distillation's timesteps, rising int64.

    Raises:
        UsageError: ``original_inference_steps`` or strength out of range.
    """
    train = settings.num_train_timesteps
    steps = options.original_inference_steps or settings.original_inference_steps
    if not 1 <= steps <= train:
        raise UsageError(
            "scheduler.original_inference_steps",
            f"{steps} steps of the distillation are out of range: 1 to {train}.",
            "50 is usual.",
        )
    if not 0 < options.strength <= 1:
        raise UsageError(
            "scheduler.strength",
            f"--strength {options.strength:g} is out of range: above 0, up to 1.",
            "0.5 to 0.8 is usual.",
        )
    return np.arange(1, int(steps * options.strength) + 1) * (train // steps) - 1


DISTILLED_FIELDS: tuple[Field, ...] = (
    *config.betas(0.00085, 0.012, "scaled_linear"),
    config.predictions("v_prediction", "sample"),
    config.whole("original_inference_steps", 50, low=1, high=100_000),
    config.flag("set_alpha_to_one", default=True),
    config.ZERO_SNR,
)

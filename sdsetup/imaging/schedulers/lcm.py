"""Latent consistency models: predict the image, add noise back, predict again.

Source: Luo et al. 2023, arXiv:2310.04378, algorithm 3; diffusers 0.42, ``schedulers/scheduling_lcm.py``,
whose numbers these are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from sdsetup.imaging.schedulers import config
from sdsetup.imaging.schedulers.config import SchedulerConfig
from sdsetup.imaging.schedulers.distilled import DISTILLED_FIELDS, distillation, distilled_timesteps
from sdsetup.imaging.schedulers.entry import Entry, Options
from sdsetup.imaging.schedulers.protocol import Floats, State
from sdsetup.imaging.schedulers.signal_table import TablePlan, check_terminal, signal_table

# Source: Song et al. 2023, arXiv:2303.01469, appendix C.
_SIGMA_DATA = 0.5


@dataclass(frozen=True, kw_only=True)
class Lcm(TablePlan):
    """One evaluation a step and fresh noise after each but the last."""

    def wants_noise(self, state: State) -> bool:
        """Everywhere but at the last evaluation."""
        return state.index < len(self.timesteps) - 1

    def advance(self, state: State, output: Floats, noise: Floats | None) -> State:
        """Predict the image, and bring it to the next timestep's noise."""
        clean = self.clean(state.sample, output, self.share(state.index))
        scaled = self.timesteps[state.index] * self.settings.timestep_scaling
        skip = _SIGMA_DATA**2 / (scaled**2 + _SIGMA_DATA**2)
        sample = np.float32(math.sqrt(1 - skip)) * clean + np.float32(skip) * state.sample
        if noise is not None:
            sample = self.noised(sample, noise, state.index + 1)
        return State(index=state.index + 1, sample=sample, begin=state.begin)


def make(settings: SchedulerConfig, options: Options) -> Lcm:
    """Plan ``steps`` evaluations.

    Raises:
        UsageError: More steps than the distillation has.
    """
    return Lcm(
        settings=settings,
        timesteps=distilled_timesteps(distillation(settings, options), options.steps),
        steps=options.steps,
        table=signal_table(settings),
    )


ENTRY = Entry(
    name="lcm",
    class_name="LCMScheduler",
    fields=(
        *DISTILLED_FIELDS,
        *config.clipping(default=False),
        config.number("timestep_scaling", 10.0, above=0),
        config.NO_THRESHOLDING,
    ),
    make=make,
    check=check_terminal,
    options=("original_inference_steps", "strength"),
)

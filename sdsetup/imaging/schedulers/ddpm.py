"""Denoising diffusion probabilistic models: the training process walked backwards, with its noise.

Source: Ho et al. 2020, arXiv:2006.11239, equation 7; diffusers 0.42, ``schedulers/scheduling_ddpm.py``,
whose numbers these are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from sdsetup.imaging.schedulers import config
from sdsetup.imaging.schedulers.config import SchedulerConfig
from sdsetup.imaging.schedulers.entry import Entry, Options
from sdsetup.imaging.schedulers.protocol import Floats, State
from sdsetup.imaging.schedulers.signal_table import TablePlan, check_terminal, signal_table
from sdsetup.imaging.schedulers.spacing import whole_timesteps

# Source: diffusers 0.42, scheduling_ddpm.py, ``_get_variance``.
_LEAST_VARIANCE = 1e-20


@dataclass(frozen=True, kw_only=True)
class Ddpm(TablePlan):
    """One evaluation a step and fresh noise after each but the one at timestep 0."""

    def wants_noise(self, state: State) -> bool:
        """Everywhere but at timestep 0."""
        return self.timesteps[state.index] > 0

    def advance(self, state: State, output: Floats, noise: Floats | None) -> State:
        """Go to the next timestep; the last one goes to no noise."""
        last = state.index == len(self.timesteps) - 1
        here = self.share(state.index)
        there = 1.0 if last else self.share(state.index + 1)
        kept = here / there
        clean = self.clean(state.sample, output, here)
        to_clean = math.sqrt(there) * (1 - kept) / (1 - here)
        to_sample = math.sqrt(kept) * (1 - there) / (1 - here)
        sample = np.float32(to_clean) * clean + np.float32(to_sample) * state.sample
        if noise is not None:
            sample = sample + np.float32(math.sqrt(self._variance(here, there))) * noise
        return State(index=state.index + 1, sample=sample, begin=state.begin)

    def _variance(self, here: float, there: float) -> float:
        large = 1 - here / there
        if self.settings.variance_type == "fixed_large":
            return large
        return max((1 - there) / (1 - here) * large, _LEAST_VARIANCE)


def make(settings: SchedulerConfig, options: Options) -> Ddpm:
    """Plan ``steps`` evaluations."""
    return Ddpm(
        settings=settings,
        timesteps=tuple(map(float, whole_timesteps(settings, options.steps))),
        steps=options.steps,
        table=signal_table(settings),
    )


ENTRY = Entry(
    name="ddpm",
    class_name="DDPMScheduler",
    fields=(
        *config.betas(0.0001, 0.02, "linear", "sigmoid", "laplace"),
        config.predictions("v_prediction", "sample"),
        *config.spacing("leading"),
        *config.clipping(default=True),
        config.choice("variance_type", "fixed_small", "fixed_small_log", "fixed_large"),
        config.ZERO_SNR,
        config.NO_THRESHOLDING,
    ),
    make=make,
    check=check_terminal,
)

"""Euler's method along sigma.

Source: Karras et al. 2022, arXiv:2206.00364, algorithm 2 without churn; diffusers 0.42,
``schedulers/scheduling_euler_discrete.py``, whose numbers these are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sdsetup.imaging.schedulers import config
from sdsetup.imaging.schedulers.config import SchedulerConfig
from sdsetup.imaging.schedulers.entry import Entry, Options
from sdsetup.imaging.schedulers.protocol import Floats, State
from sdsetup.imaging.schedulers.variance_exploding import SigmaPlan, as_floats, last_sigma, sigma_levels


@dataclass(frozen=True, kw_only=True)
class Euler(SigmaPlan):
    """One evaluation a step, no randomness after the start."""

    def advance(self, state: State, output: Floats, noise: Floats | None) -> State:  # noqa: ARG002
        """Follow the slope to the next noise level."""
        sigma, following = self.sigmas[state.index : state.index + 2]
        slope = self.derivative(state.sample, output, sigma)
        sample = state.sample + slope * np.float32(following - sigma)
        return State(index=state.index + 1, sample=sample, begin=state.begin)


def make(settings: SchedulerConfig, options: Options) -> Euler:
    """Plan ``steps`` evaluations."""
    timesteps, levels = sigma_levels(settings, options.steps)
    sigmas = as_floats(np.append(levels, last_sigma(settings)))
    if settings.timestep_type == "continuous" and settings.prediction_type == "v_prediction":
        # Source: Karras et al. 2022, arXiv:2206.00364, table 1, c_noise.
        timesteps = np.float32(0.25) * np.log(np.array(sigmas[:-1], dtype=np.float32))
    return Euler(settings=settings, timesteps=as_floats(timesteps), steps=options.steps, sigmas=sigmas)


ENTRY = Entry(
    name="euler",
    class_name="EulerDiscreteScheduler",
    fields=(
        *config.betas(0.0001, 0.02),
        config.choice(
            "prediction_type", "epsilon", "v_prediction", "sample", same_as={"original_sample": "sample"}
        ),
        *config.spacing("linspace"),
        config.choice("interpolation_type", "linear", "log_linear"),
        config.choice("timestep_type", "discrete", "continuous"),
        *config.SIGMA_SPACINGS,
        config.FINAL_SIGMA,
        config.ZERO_SNR,
    ),
    make=make,
)

"""Euler's method with fresh noise at every step.

Source: k-diffusion, ``get_ancestral_step``; diffusers 0.42,
``schedulers/scheduling_euler_ancestral_discrete.py``, whose numbers these are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sdsetup.imaging.schedulers import config
from sdsetup.imaging.schedulers.config import SchedulerConfig
from sdsetup.imaging.schedulers.entry import Entry, Options
from sdsetup.imaging.schedulers.protocol import Floats, State
from sdsetup.imaging.schedulers.variance_exploding import SigmaPlan, as_floats, sigma_levels


def ancestral_step(sigma: float, following: float) -> tuple[float, float]:
    """Return how far down to go from ``sigma``, and how much noise brings that back up to ``following``.

    In float32: the difference of two near squares is what its rounding makes of it, there as here.
    """
    here, there = np.float32(sigma) ** 2, np.float32(following) ** 2
    up = np.sqrt(np.maximum(there * (here - there) / here, np.float32(0)))
    return float(np.sqrt(np.maximum(there - up**2, np.float32(0)))), float(up)


@dataclass(frozen=True, kw_only=True)
class EulerAncestral(SigmaPlan):
    """One evaluation a step, which goes too far down and comes back up with noise."""

    def wants_noise(self, state: State) -> bool:
        """Every step but the last, which ends without noise."""
        return self.sigmas[state.index + 1] > 0

    def advance(self, state: State, output: Floats, noise: Floats | None) -> State:
        """Follow the slope down past the next noise level, then add noise up to it."""
        sigma, following = self.sigmas[state.index : state.index + 2]
        down, up = ancestral_step(sigma, following)
        slope = self.derivative(state.sample, output, sigma)
        sample = state.sample + slope * np.float32(down - sigma)
        if noise is not None:
            sample = sample + noise * np.float32(up)
        return State(index=state.index + 1, sample=sample, begin=state.begin)


def make(settings: SchedulerConfig, options: Options) -> EulerAncestral:
    """Plan ``steps`` evaluations."""
    timesteps, levels = sigma_levels(settings, options.steps)
    return EulerAncestral(
        settings=settings,
        timesteps=as_floats(timesteps),
        steps=options.steps,
        sigmas=as_floats(np.append(levels, 0)),
    )


ENTRY = Entry(
    name="euler_ancestral",
    class_name="EulerAncestralDiscreteScheduler",
    fields=(
        *config.betas(0.0001, 0.02),
        config.predictions("v_prediction"),
        *config.spacing("linspace"),
        config.ZERO_SNR,
    ),
    make=make,
)

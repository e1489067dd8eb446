"""Stochastic DPM-Solver++ of second order along sigma, on one Brownian path.

Both evaluations of a step draw on the same path W over sigma: the first needs W from the step's beginning
to its middle, the second from its beginning to its end. Increments over intervals that do not overlap are
independent normal noise, so the second is the first's increment plus fresh noise for the rest.

Source: k-diffusion, ``sample_dpmpp_sde``; Lu et al. 2022, arXiv:2211.01095, appendix E; diffusers 0.42,
``schedulers/scheduling_dpmsolver_sde.py``, whose numbers these are on the same path. The path itself is
another one: diffusers draws it from torchsde, here it comes from the noise that the caller passes in.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from sdsetup.imaging.schedulers import config
from sdsetup.imaging.schedulers import noise as noise_schedule
from sdsetup.imaging.schedulers.config import SchedulerConfig
from sdsetup.imaging.schedulers.entry import Entry, Options
from sdsetup.imaging.schedulers.euler_ancestral import ancestral_step
from sdsetup.imaging.schedulers.protocol import Floats, State
from sdsetup.imaging.schedulers.sigma_spacing import timesteps_of
from sdsetup.imaging.schedulers.variance_exploding import SigmaPlan, as_floats, sigma_levels


@dataclass(frozen=True, kw_only=True)
class DpmPlusPlusSde(SigmaPlan):
    """Two evaluations a step, one in the last, which ends without noise."""

    evaluations_per_step: ClassVar[int] = 2

    def sigma_seen(self, index: int) -> float:
        """Return the noise level at which the model is evaluated."""
        step, second = divmod(index, 2)
        return self._middle(step) if second else self.sigmas[step]

    def wants_noise(self, state: State) -> bool:
        """Every evaluation but the last."""
        return self.sigmas[state.index // 2 + 1] > 0

    def advance(self, state: State, output: Floats, noise: Floats | None) -> State:
        """Go to the step's middle, or go from its beginning to its end with what the middle predicts."""
        step, second = divmod(state.index, 2)
        sigma, following = self.sigmas[step : step + 2]
        clean = self.clean(state.sample, output, self.sigma_seen(state.index))
        if noise is None:
            sample = self._go(state.sample, clean, sigma, following, None)
            return State(index=state.index + 1, sample=sample, begin=state.begin)
        middle = self._middle(step)
        if not second:
            return State(
                index=state.index + 1,
                sample=self._go(state.sample, clean, sigma, middle, noise),
                begin=state.begin,
                history=(noise,),
                anchor=state.sample,
            )
        assert state.anchor is not None
        first, rest = math.sqrt(sigma - middle), math.sqrt(middle - following)
        path = (np.float32(first) * state.history[-1] + np.float32(rest) * noise) * np.float32(
            1 / math.sqrt(sigma - following)
        )
        sample = self._go(state.anchor, clean, sigma, following, path)
        return State(index=state.index + 1, sample=sample, begin=state.begin)

    def _middle(self, step: int) -> float:
        return math.sqrt(self.sigmas[step] * self.sigmas[step + 1])

    def _go(self, sample: Floats, clean: Floats, sigma: float, target: float, noise: Floats | None) -> Floats:
        down, up = ancestral_step(sigma, target)
        moved = np.float32(down / sigma) * sample + np.float32(1 - down / sigma) * clean
        return moved if noise is None else moved + np.float32(up) * noise


def make(settings: SchedulerConfig, options: Options) -> DpmPlusPlusSde:
    """Plan ``2 * steps - 1`` evaluations."""
    if settings.use_karras_sigmas:
        # This class's Karras sigmas take no ends from the configuration.
        settings = replace(settings, sigma_min=None, sigma_max=None)
    timesteps, levels = sigma_levels(settings, options.steps)
    between = timesteps_of(np.sqrt(levels[:-1] * levels[1:]), noise_schedule.sigmas(settings))
    visited = np.empty(2 * len(timesteps) - 1)
    visited[::2], visited[1::2] = timesteps, between
    return DpmPlusPlusSde(
        settings=settings,
        timesteps=as_floats(visited),
        steps=options.steps,
        sigmas=as_floats(np.append(levels, 0)),
    )


ENTRY = Entry(
    name="dpmpp_sde",
    class_name="DPMSolverSDEScheduler",
    fields=(
        *config.betas(0.00085, 0.012),
        config.predictions("v_prediction"),
        *config.spacing("linspace"),
        *config.SIGMA_SPACINGS,
    ),
    make=make,
)

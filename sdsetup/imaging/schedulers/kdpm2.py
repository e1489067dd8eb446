"""The midpoint method along sigma (DPM-Solver-2 of Karras), and its ancestral twin.

Source: Karras et al. 2022, arXiv:2206.00364, algorithm 2; k-diffusion, ``sample_dpm_2`` and
``sample_dpm_2_ancestral``; diffusers 0.42, ``schedulers/scheduling_k_dpm_2_discrete.py`` and
``scheduling_k_dpm_2_ancestral_discrete.py``, whose numbers these are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
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
class Kdpm2(SigmaPlan):
    """Two evaluations a step, one in the last, which ends without noise.

    Attributes:
        middles: The noise level of each step's second evaluation; 0 in the last step.
        ups: How much noise each step adds at its end.
        downs: How far down each step goes.
    """

    evaluations_per_step: ClassVar[int] = 2

    middles: tuple[float, ...]
    ups: tuple[float, ...]
    downs: tuple[float, ...]

    def sigma_seen(self, index: int) -> float:
        """Return the noise level at which the model is evaluated."""
        step, second = divmod(index, 2)
        return self.middles[step] if second else self.sigmas[step]

    def wants_noise(self, state: State) -> bool:
        """Only the ancestral form, at the end of a step."""
        step, second = divmod(state.index, 2)
        return bool(second) and self.ups[step] > 0

    def advance(self, state: State, output: Floats, noise: Floats | None) -> State:
        """Go to the step's middle, or go from its beginning to its end with the middle's slope."""
        step, second = divmod(state.index, 2)
        sigma, middle = self.sigmas[step], self.middles[step]
        if not second:
            slope = self.derivative(state.sample, output, sigma)
            sample = state.sample + slope * np.float32(middle - sigma)
            return State(index=state.index + 1, sample=sample, begin=state.begin, anchor=state.sample)
        assert state.anchor is not None
        slope = self.derivative(state.sample, output, middle)
        sample = state.anchor + slope * np.float32(self.downs[step] - sigma)
        if noise is not None:
            sample = sample + noise * np.float32(self.ups[step])
        return State(index=state.index + 1, sample=sample, begin=state.begin)


def _make(settings: SchedulerConfig, options: Options, *, ancestral: bool) -> Kdpm2:
    timesteps, levels = sigma_levels(settings, options.steps)
    if settings.use_karras_sigmas:
        timesteps = timesteps.round()
    sigmas = as_floats(np.append(levels, 0))
    steps = list(pairwise(sigmas))
    pairs = [ancestral_step(*step) if ancestral else (step[1], 0.0) for step in steps]
    downs, ups = zip(*pairs, strict=True)
    # The last step goes down to no noise, whose logarithm is minus infinity.
    middles = [math.sqrt(sigma * down) for (sigma, _), down in zip(steps, downs, strict=True)]
    between = timesteps_of(np.array(middles[:-1], dtype=np.float32), noise_schedule.sigmas(settings))
    visited = np.empty(2 * len(timesteps) - 1)
    visited[::2], visited[1::2] = timesteps, between
    return Kdpm2(
        settings=settings,
        timesteps=as_floats(visited),
        steps=options.steps,
        sigmas=sigmas,
        middles=as_floats(np.array(middles)),
        ups=ups,
        downs=downs,
    )


def make(settings: SchedulerConfig, options: Options) -> Kdpm2:
    """Plan ``2 * steps - 1`` evaluations without noise on the way."""
    return _make(settings, options, ancestral=False)


def make_ancestral(settings: SchedulerConfig, options: Options) -> Kdpm2:
    """Plan ``2 * steps - 1`` evaluations with fresh noise at the end of each step but the last."""
    return _make(settings, options, ancestral=True)


_FIELDS = (
    *config.betas(0.00085, 0.012),
    config.predictions("v_prediction"),
    *config.spacing("linspace"),
    *config.SIGMA_SPACINGS,
)
ENTRY = Entry(name="kdpm2", class_name="KDPM2DiscreteScheduler", fields=_FIELDS, make=make)
ANCESTRAL_ENTRY = Entry(
    name="kdpm2_ancestral",
    class_name="KDPM2AncestralDiscreteScheduler",
    fields=_FIELDS,
    make=make_ancestral,
)

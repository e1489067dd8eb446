"""Heun's method along sigma: a step's slope is the mean of those at both of its ends.

Source: Karras et al. 2022, arXiv:2206.00364, algorithm 1; diffusers 0.42,
``schedulers/scheduling_heun_discrete.py``, whose numbers these are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from sdsetup.imaging.schedulers import config
from sdsetup.imaging.schedulers.config import SchedulerConfig
from sdsetup.imaging.schedulers.entry import Entry, Options
from sdsetup.imaging.schedulers.protocol import Floats, State
from sdsetup.imaging.schedulers.variance_exploding import SigmaPlan, as_floats, sigma_levels


@dataclass(frozen=True, kw_only=True)
class Heun(SigmaPlan):
    """Two evaluations a step, one in the last, which ends without noise."""

    evaluations_per_step: ClassVar[int] = 2

    def advance(self, state: State, output: Floats, noise: Floats | None) -> State:  # noqa: ARG002
        """Go to the step's end, or go again from its beginning with the mean of both slopes."""
        step, second = divmod(state.index, 2)
        sigma, following = self.sigmas[step : step + 2]
        reach = np.float32(following - sigma)
        if not second:
            slope = self.derivative(state.sample, output, sigma)
            return State(
                index=state.index + 1,
                sample=state.sample + slope * reach,
                begin=state.begin,
                history=(slope,),
                anchor=state.sample,
            )
        assert state.anchor is not None
        slope = (state.history[-1] + self.derivative(state.sample, output, following)) * np.float32(0.5)
        return State(index=state.index + 1, sample=state.anchor + slope * reach, begin=state.begin)


def make(settings: SchedulerConfig, options: Options) -> Heun:
    """Plan ``2 * steps - 1`` evaluations."""
    timesteps, levels = sigma_levels(settings, options.steps)
    return Heun(
        settings=settings,
        timesteps=as_floats(np.repeat(timesteps, 2)[1:]),
        steps=options.steps,
        sigmas=as_floats(np.append(levels, 0)),
    )


ENTRY = Entry(
    name="heun",
    class_name="HeunDiscreteScheduler",
    fields=(
        *config.betas(0.00085, 0.012, "linear", "exp"),
        config.predictions("v_prediction", "sample"),
        *config.spacing("linspace"),
        *config.clipping(default=False),
        *config.SIGMA_SPACINGS,
    ),
    make=make,
)

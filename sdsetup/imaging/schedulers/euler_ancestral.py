"""Euler's method with fresh noise at every step.

Source: k-diffusion, ``get_ancestral_step``; diffusers 0.42,
``schedulers/scheduling_euler_ancestral_discrete.py``, whose numbers these are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from sdsetup.errors import SetupError
from sdsetup.imaging.schedulers.config import SchedulerConfig
from sdsetup.imaging.schedulers.protocol import Floats, State
from sdsetup.imaging.schedulers.sigma_path import SigmaPath, derivative, sigma_path


@dataclass(frozen=True, kw_only=True)
class EulerAncestral:
    """One evaluation a step, which goes too far down and comes back up with noise."""

    settings: SchedulerConfig
    path: SigmaPath

    @property
    def timesteps(self) -> tuple[float, ...]:
        """What the UNet is told at each evaluation."""
        return self.path.timesteps

    def start(self, noise: Floats) -> State:
        """Begin at the path's first noise level."""
        return State(index=0, sample=noise * np.float32(self.path.initial_scale))

    def model_input(self, state: State) -> Floats:
        """Return the sample at unit variance."""
        return self.path.scaled(state.sample, state.index)

    def wants_noise(self, state: State) -> bool:
        """Every step but the last, which ends without noise."""
        return self.path.sigmas[state.index + 1] > 0

    def advance(self, state: State, output: Floats, noise: Floats | None) -> State:
        """Follow the slope down past the next noise level, then add noise up to it."""
        sigma, following = self.path.sigmas[state.index : state.index + 2]
        up = math.sqrt(following**2 * (sigma**2 - following**2) / sigma**2)
        down = math.sqrt(following**2 - up**2)
        slope = derivative(self.settings, state.sample, output, sigma)
        sample = state.sample + slope * np.float32(down - sigma)
        if noise is not None:
            sample = sample + noise * np.float32(up)
        return State(index=state.index + 1, sample=sample)


def make(settings: SchedulerConfig, steps: int) -> EulerAncestral:
    """Plan ``steps`` evaluations.

    Raises:
        SetupError: The model predicts samples, which this method is not defined for.
    """
    if settings.prediction_type == "sample":
        raise SetupError(
            "scheduler.unsupported",
            "the euler_ancestral scheduler does not work with a model that predicts samples.",
            "choose another one, for example --scheduler euler.",
        )
    # The other spacings of sigma are not part of this scheduler: the same fields may be there for another.
    plain = replace(settings, use_karras_sigmas=False, use_exponential_sigmas=False, final_sigmas_type="zero")
    return EulerAncestral(settings=plain, path=sigma_path(plain, steps))

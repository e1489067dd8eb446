"""Euler's method along sigma.

Source: Karras et al. 2022, arXiv:2206.00364, algorithm 2 without churn; diffusers 0.42,
``schedulers/scheduling_euler_discrete.py``, whose numbers these are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sdsetup.imaging.schedulers.config import SchedulerConfig
from sdsetup.imaging.schedulers.protocol import Floats, State
from sdsetup.imaging.schedulers.sigma_path import SigmaPath, derivative, sigma_path


@dataclass(frozen=True, kw_only=True)
class Euler:
    """One evaluation a step, no randomness after the start."""

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

    def wants_noise(self, state: State) -> bool:  # noqa: ARG002 - the protocol's signature
        """Never: the path is deterministic."""
        return False

    def advance(self, state: State, output: Floats, noise: Floats | None) -> State:  # noqa: ARG002
        """Follow the slope to the next noise level."""
        sigma, following = self.path.sigmas[state.index : state.index + 2]
        slope = derivative(self.settings, state.sample, output, sigma)
        return State(index=state.index + 1, sample=state.sample + slope * np.float32(following - sigma))


def make(settings: SchedulerConfig, steps: int) -> Euler:
    """Plan ``steps`` evaluations."""
    return Euler(settings=settings, path=sigma_path(settings, steps))

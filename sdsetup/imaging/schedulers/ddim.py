"""Denoising diffusion implicit models.

Source: Song et al. 2021, arXiv:2010.02502, equations 12 and 16; diffusers 0.42,
``schedulers/scheduling_ddim.py``, whose numbers these are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from sdsetup.imaging.schedulers import noise
from sdsetup.imaging.schedulers.config import SchedulerConfig
from sdsetup.imaging.schedulers.protocol import Floats, State
from sdsetup.imaging.schedulers.spacing import whole_timesteps


@dataclass(frozen=True, kw_only=True)
class Ddim:
    """One evaluation a step; ``eta`` 0 is deterministic, 1 adds the noise of the training process back."""

    settings: SchedulerConfig
    timesteps: tuple[float, ...]
    signal: tuple[tuple[float, float], ...]
    eta: float

    def start(self, noise: Floats) -> State:
        """Begin with unit normal noise."""
        return State(index=0, sample=noise)

    def model_input(self, state: State) -> Floats:
        """Return the sample as it is."""
        return state.sample

    def wants_noise(self, state: State) -> bool:  # noqa: ARG002 - the protocol's signature
        """Noise is added back only where eta asks for it."""
        return self.eta > 0

    def advance(self, state: State, output: Floats, noise: Floats | None) -> State:
        """Go from timestep t to the one before it."""
        here, there = self.signal[state.index]
        root_signal, root_noise = np.float32(math.sqrt(here)), np.float32(math.sqrt(1 - here))
        if self.settings.prediction_type == "epsilon":
            epsilon = output
            clean = (state.sample - root_noise * output) * np.float32(1 / math.sqrt(here))
        elif self.settings.prediction_type == "sample":
            clean = output
            epsilon = (state.sample - root_signal * output) * np.float32(1 / math.sqrt(1 - here))
        else:
            clean = root_signal * state.sample - root_noise * output
            epsilon = root_signal * output + root_noise * state.sample
        if self.settings.clip_sample:
            limit = np.float32(self.settings.clip_sample_range)
            clean = np.clip(clean, -limit, limit)
        variance = (1 - there) / (1 - here) * (1 - here / there)
        spread = self.eta * math.sqrt(variance)
        direction = math.sqrt(max(1 - there - spread**2, 0.0))
        sample = np.float32(math.sqrt(there)) * clean + np.float32(direction) * epsilon
        if noise is not None:
            sample = sample + np.float32(spread) * noise
        return State(index=state.index + 1, sample=sample)


def make(settings: SchedulerConfig, steps: int, eta: float) -> Ddim:
    """Plan ``steps`` evaluations."""
    timesteps = whole_timesteps(settings, steps)
    table = noise.alphas_cumprod(settings)
    final = 1.0 if settings.set_alpha_to_one else float(table[0])
    stride = settings.num_train_timesteps // steps
    signal = tuple(
        (float(table[t]), float(table[t - stride]) if t >= stride else final) for t in timesteps.tolist()
    )
    return Ddim(settings=settings, timesteps=tuple(map(float, timesteps)), signal=signal, eta=eta)

"""Denoising diffusion implicit models.

Source: Song et al. 2021, arXiv:2010.02502, equations 12 and 16; diffusers 0.42,
``schedulers/scheduling_ddim.py``, whose numbers these are.
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


@dataclass(frozen=True, kw_only=True)
class Ddim(TablePlan):
    """One evaluation a step; ``eta`` 0 is deterministic, 1 adds the noise of the training process back."""

    eta: float

    def wants_noise(self, state: State) -> bool:  # noqa: ARG002 - the protocol's signature
        """Noise is added back only where eta asks for it."""
        return self.eta > 0

    def advance(self, state: State, output: Floats, noise: Floats | None) -> State:
        """Go from timestep t to the one before it."""
        here = self.share(state.index)
        target = int(self.timesteps[state.index]) - self.settings.num_train_timesteps // self.steps
        there = self.table[target] if target >= 0 else self.final
        clean = self.clean(state.sample, output, here)
        epsilon = self.epsilon(state.sample, output, here)
        variance = (1 - there) / (1 - here) * (1 - here / there)
        spread = self.eta * math.sqrt(max(variance, 0.0))
        direction = math.sqrt(max(1 - there - spread**2, 0.0))
        sample = np.float32(math.sqrt(there)) * clean + np.float32(direction) * epsilon
        if noise is not None:
            sample = sample + np.float32(spread) * noise
        return State(index=state.index + 1, sample=sample, begin=state.begin)


def make(settings: SchedulerConfig, options: Options) -> Ddim:
    """Plan ``steps`` evaluations."""
    return Ddim(
        settings=settings,
        timesteps=tuple(map(float, whole_timesteps(settings, options.steps))),
        steps=options.steps,
        table=signal_table(settings),
        eta=options.eta,
    )


ENTRY = Entry(
    name="ddim",
    class_name="DDIMScheduler",
    fields=(
        *config.betas(0.0001, 0.02),
        config.predictions("v_prediction", "sample"),
        *config.spacing("leading"),
        *config.clipping(default=True),
        config.flag("set_alpha_to_one", default=True),
        config.ZERO_SNR,
        config.NO_THRESHOLDING,
    ),
    make=make,
    check=check_terminal,
    options=("eta",),
)

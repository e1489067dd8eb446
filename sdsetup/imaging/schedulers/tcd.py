"""Trajectory consistency distillation: go past the next timestep, and come back to it with noise.

Source: Zheng et al. 2024, arXiv:2402.19159, algorithm 4 (its gamma is eta here); diffusers 0.42,
``schedulers/scheduling_tcd.py``, whose numbers these are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from sdsetup.imaging.schedulers.config import SchedulerConfig
from sdsetup.imaging.schedulers.distilled import DISTILLED_FIELDS, distillation, distilled_timesteps
from sdsetup.imaging.schedulers.entry import Entry, Options
from sdsetup.imaging.schedulers.protocol import Floats, State
from sdsetup.imaging.schedulers.signal_table import TablePlan, check_terminal, signal_table


@dataclass(frozen=True, kw_only=True)
class Tcd(TablePlan):
    """One evaluation a step; ``eta`` 0 is deterministic, 1 goes down to the image each time."""

    eta: float

    def wants_noise(self, state: State) -> bool:
        """Where eta asks for it, everywhere but at the last evaluation."""
        return self.eta > 0 and state.index < len(self.timesteps) - 1

    def advance(self, state: State, output: Floats, noise: Floats | None) -> State:
        """Go past the next timestep, then add noise up to it."""
        last = state.index == len(self.timesteps) - 1
        following = 0.0 if last else self.timesteps[state.index + 1]
        # float32 as in diffusers: a product just below a whole number is rounded up to it.
        past = int(np.float32(1 - self.eta) * np.float32(following))
        here, beyond = self.share(state.index), self.table[past]
        clean = self.clean(state.sample, output, here)
        epsilon = self.epsilon(state.sample, output, here)
        sample = np.float32(math.sqrt(beyond)) * clean + np.float32(math.sqrt(1 - beyond)) * epsilon
        if noise is not None:
            kept = self.table[int(following)] / beyond
            sample = np.float32(math.sqrt(kept)) * sample + np.float32(math.sqrt(1 - kept)) * noise
        return State(index=state.index + 1, sample=sample, begin=state.begin)


def make(settings: SchedulerConfig, options: Options) -> Tcd:
    """Plan ``steps`` evaluations.

    Raises:
        UsageError: More steps than the distillation has.
    """
    origin = distillation(settings, options)
    if options.original_inference_steps is not None:
        # As diffusers' class does it: the number is then only a limit, and any timestep may be chosen.
        origin = np.arange(int(settings.num_train_timesteps * options.strength))
    return Tcd(
        settings=settings,
        timesteps=distilled_timesteps(origin, options.steps),
        steps=options.steps,
        table=signal_table(settings),
        eta=options.eta,
    )


ENTRY = Entry(
    name="tcd",
    class_name="TCDScheduler",
    fields=DISTILLED_FIELDS,
    make=make,
    check=check_terminal,
    options=("eta", "original_inference_steps", "strength"),
)

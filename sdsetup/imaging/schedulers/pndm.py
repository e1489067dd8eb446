"""Pseudo numerical methods for diffusion models.

Source: Liu et al. 2022, arXiv:2202.09778, equations 9, 12 and 13 and algorithm 2; diffusers 0.42,
``schedulers/scheduling_pndm.py``, whose numbers these are. Without Runge-Kutta steps, as Stable
Diffusion uses it, the second evaluation repeats the first step (PLMS).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from sdsetup.errors import UsageError
from sdsetup.imaging.schedulers import config
from sdsetup.imaging.schedulers.config import SchedulerConfig
from sdsetup.imaging.schedulers.entry import Entry, Options
from sdsetup.imaging.schedulers.protocol import Floats, State
from sdsetup.imaging.schedulers.signal_table import TablePlan, signal_table
from sdsetup.imaging.schedulers.spacing import whole_timesteps

# Remembered outputs, and evaluations in a Runge-Kutta step.
_ORDER = 4
# Weights of one to four remembered outputs, newest first (Adams-Bashforth).
_MULTISTEP: tuple[tuple[float, ...], ...] = (
    (1.0,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)
_RUNGE_KUTTA = (1 / 6, 1 / 3, 1 / 3, 1 / 6)


@dataclass(frozen=True, kw_only=True)
class Pndm(TablePlan):
    """Four remembered outputs; the first steps use repeated evaluations in their place.

    Attributes:
        runge_kutta: Evaluations that belong to Runge-Kutta steps, at the beginning.
    """

    runge_kutta: int

    @property
    def stride(self) -> int:
        """Timesteps in a step."""
        return self.settings.num_train_timesteps // self.steps

    def first_index(self, strength: float) -> int:
        """Return where image to image begins.

        Raises:
            UsageError: Strength is out of range, or it would begin among the Runge-Kutta steps.
        """
        index = super().first_index(strength)
        if index > 0 and self.runge_kutta > 0:
            raise UsageError(
                "scheduler.unsupported",
                "this model's pndm scheduler begins with Runge-Kutta steps and cannot begin in the middle.",
                "choose another one, for example --scheduler ddim.",
            )
        return index

    def advance(self, state: State, output: Floats, noise: Floats | None) -> State:  # noqa: ARG002
        """Go one evaluation further."""
        if state.index < self.runge_kutta:
            return self._runge_kutta_part(state, output)
        return self._multistep(state, output)

    def _runge_kutta_part(self, state: State, output: Floats) -> State:
        """Make one of four evaluations of a Runge-Kutta step.

        The history's last entry is the blend of this step's outputs so far; those before it are
        the first outputs of the steps, which the multi-step part goes on from.
        """
        part = state.index % _ORDER
        start = int(self.timesteps[state.index - part])
        half = self.stride // 2 if state.index % 2 == 0 else 0
        target = int(self.timesteps[state.index]) - half
        weighted = np.float32(_RUNGE_KUTTA[part]) * output
        anchor = state.sample if state.anchor is None else state.anchor
        if part == 0:
            history, blend = (*state.history, output), weighted
        else:
            history, blend = state.history[:-1], state.history[-1] + weighted
        if part == _ORDER - 1:
            sample = self._transfer(anchor, start, target, blend)
            return State(index=state.index + 1, sample=sample, begin=state.begin, history=history)
        return State(
            index=state.index + 1,
            begin=state.begin,
            sample=self._transfer(anchor, start, target, output),
            history=(*history, blend),
            anchor=anchor,
        )

    def _multistep(self, state: State, output: Floats) -> State:
        """Make a step with the weighted mean of the last outputs.

        The second evaluation repeats the first step from wherever the trajectory began; after ``resume`` the
        timesteps then run one step ahead of the sample, as in diffusers.
        """
        here = int(self.timesteps[state.index])
        if state.anchor is not None:
            # The first step again, now with the mean of the outputs at both of its ends.
            mean = (output + state.history[-1]) * np.float32(0.5)
            sample = self._transfer(state.anchor, here + self.stride, here, mean)
            return State(index=state.index + 1, sample=sample, begin=state.begin, history=state.history)
        history = (*state.history[-(_ORDER - 1) :], output)
        weights = _MULTISTEP[len(history) - 1]
        used = sum(
            (np.float32(weight) * past for weight, past in zip(weights, reversed(history), strict=True)),
            start=np.zeros_like(output),
        )
        return State(
            index=state.index + 1,
            begin=state.begin,
            sample=self._transfer(state.sample, here, here - self.stride, used),
            history=history,
            anchor=state.sample if state.index == state.begin else None,
        )

    def _transfer(self, sample: Floats, start: int, target: int, output: Floats) -> Floats:
        """Bring a sample from one timestep to another (equation 9)."""
        here = self.table[start]
        there = self.table[target] if target >= 0 else self.final
        output = self.epsilon(sample, output, here)
        scale = here * math.sqrt(1 - there) + math.sqrt(here * (1 - here) * there)
        moved: Floats = (
            np.float32(math.sqrt(there / here)) * sample - np.float32((there - here) / scale) * output
        )
        return moved


def make(settings: SchedulerConfig, options: Options) -> Pndm:
    """Plan ``steps`` steps: one evaluation more without Runge-Kutta steps, nine more with them.

    Raises:
        UsageError: Too few steps to begin with Runge-Kutta.
    """
    steps = options.steps
    rising = whole_timesteps(settings, steps)[::-1]
    if settings.skip_prk_steps:
        first: list[int] = []
        rest = [*rising[:-1], *rising[-2:-1], *rising[-1:]][::-1]
    else:
        if steps < _ORDER:
            raise UsageError(
                "scheduler.too_few_steps",
                f"--steps {steps} is too few for this model's pndm scheduler, which begins with Runge-Kutta.",
                f"use --steps {_ORDER} or more, or another --scheduler.",
            )
        half = settings.num_train_timesteps // steps // 2
        ends = rising[-_ORDER:].repeat(2) + np.tile(np.array([0, half]), _ORDER)
        first = list(ends[:-1].repeat(2)[1:-1][::-1])
        rest = list(rising[: 1 - _ORDER][::-1])
    return Pndm(
        settings=settings,
        timesteps=tuple(float(t) for t in [*first, *rest]),
        steps=steps,
        runge_kutta=len(first),
        table=signal_table(settings),
    )


ENTRY = Entry(
    name="pndm",
    class_name="PNDMScheduler",
    fields=(
        *config.betas(0.0001, 0.02),
        config.predictions("v_prediction"),
        *config.spacing("leading"),
        config.flag("skip_prk_steps", default=False),
        config.flag("set_alpha_to_one", default=False),
    ),
    make=make,
)

"""DPM-Solver in its single-step form: groups of one to three evaluations, each from the group's beginning.

Source: Lu et al. 2022, arXiv:2206.00927, algorithms 1 and 2; diffusers 0.42,
``schedulers/scheduling_dpmsolver_singlestep.py``, whose numbers these are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sdsetup.imaging.schedulers import config
from sdsetup.imaging.schedulers import noise as noise_schedule
from sdsetup.imaging.schedulers.config import SchedulerConfig
from sdsetup.imaging.schedulers.dpm_solver import SOLVER_FIELDS, DpmSolverPlan, check_final, last_timestep
from sdsetup.imaging.schedulers.entry import Entry, Options
from sdsetup.imaging.schedulers.protocol import Floats, State
from sdsetup.imaging.schedulers.sigma_spacing import respaced, timesteps_of
from sdsetup.imaging.schedulers.variance_exploding import as_floats, last_sigma
from sdsetup.imaging.schedulers.variance_preserving import check_distinct, flow_levels


def _orders(settings: SchedulerConfig, steps: int) -> tuple[int, ...]:
    """Return the order of each evaluation's step: how many predictions of its group it uses.

    Source: diffusers 0.42, ``get_order_list`` and the end of ``set_timesteps``.
    """
    order = settings.solver_order
    group = list(range(1, order + 1))
    lower_at_end = settings.lower_order_final or steps % order != 0 or settings.final_sigmas_type == "zero"
    if lower_at_end:
        whole, left = divmod(steps, order)
        if order > 1 and left == 0:
            whole, left = whole - 1, order
        # The last group ends with a step of first order.
        tail = {1: [1], 2: [1, 2] if order == 3 and steps % 3 else [1, 1], 3: [1, 2, 1]}
        orders = group * whole + (tail[left] if left else [])
    else:
        orders = group * (steps // order)
    if settings.final_sigmas_type == "zero":
        orders[-1] = 1
    return tuple(orders)


@dataclass(frozen=True, kw_only=True)
class DpmSinglestep(DpmSolverPlan):
    """One evaluation a step; a step of higher order starts over from its group's beginning.

    Attributes:
        orders: The order of each step.
    """

    orders: tuple[int, ...]

    def wants_noise(self, state: State) -> bool:
        """Only the stochastic form, and not where it ends without noise."""
        return self.stochastic and self.sigmas[state.index + 1] > 0

    def advance(self, state: State, output: Floats, noise: Floats | None) -> State:
        """Go from the group's beginning to the next noise level."""
        history = (*state.history, self.predicted(state.sample, output, state.index))
        history = history[-self.settings.solver_order :]
        order = min(self.orders[state.index], state.index - state.begin + 1)
        anchor = state.sample if order == 1 else state.anchor
        assert anchor is not None
        sample = self.step(
            anchor,
            self._differences(state.index, history[-order:]),
            state.index + 1 - order,
            state.index + 1,
            noise,
            midpoint=self.settings.solver_type == "midpoint" and order == 2,
        )
        return State(index=state.index + 1, sample=sample, begin=state.begin, history=history, anchor=anchor)

    def _differences(self, index: int, predictions: tuple[Floats, ...]) -> tuple[Floats, ...]:
        """Return the group's first prediction and the differences of the others from it along lambda."""
        order = len(predictions)
        if order == 1:
            return predictions
        start = self.lambda_(index + 1 - order)
        step = self.lambda_(index + 1) - start
        last = (self.lambda_(index) - start) / step
        first = predictions[0]
        slope = (predictions[-1] - first) * np.float32(1 / last)
        if order == 2 or self.settings.solver_type == "midpoint":
            return first, slope
        middle = (self.lambda_(index - 1) - start) / step
        other = (predictions[1] - first) * np.float32(1 / middle)
        return (
            first,
            (np.float32(last) * other - np.float32(middle) * slope) * np.float32(1 / (last - middle)),
            (slope - other) * np.float32(2 / (last - middle)),
        )


def make(settings: SchedulerConfig, options: Options) -> DpmSinglestep:
    """Plan ``steps`` evaluations.

    Raises:
        UsageError: More steps than the configuration has different noise levels.
    """
    table = noise_schedule.sigmas(settings)
    other = respaced(settings, table[::-1], options.steps)
    if other is not None:
        levels, timesteps = other, timesteps_of(other, table)
        if settings.use_karras_sigmas:
            timesteps = timesteps.round()
    elif settings.use_flow_sigmas:
        levels = flow_levels(settings, options.steps, options.mu)
        timesteps = levels * settings.num_train_timesteps
    else:
        timesteps = np.linspace(0, last_timestep(settings) - 1, options.steps + 1).round()[:0:-1]
        levels = np.interp(timesteps, np.arange(len(table)), table)
    sigmas = as_floats(np.append(levels, last_sigma(settings)))
    check_distinct(sigmas, "dpmpp_singlestep", options.steps)
    return DpmSinglestep(
        settings=settings,
        timesteps=tuple(float(int(place)) for place in timesteps),
        steps=options.steps,
        sigmas=sigmas,
        orders=_orders(settings, options.steps),
    )


ENTRY = Entry(
    name="dpmpp_singlestep",
    class_name="DPMSolverSinglestepScheduler",
    fields=(
        *SOLVER_FIELDS,
        config.flag("lower_order_final", default=False),
        config.choice(
            "algorithm_type",
            "dpmsolver++",
            "sde-dpmsolver++",
            "dpmsolver",
            same_as={"deis": "dpmsolver++"},
        ),
    ),
    make=make,
    check=check_final,
    options=("mu",),
)

"""DPM-Solver in its multi-step form, of first to third order, and its stochastic twin (DPM++ 2M, 2M SDE).

Source: Lu et al. 2022, arXiv:2211.01095, algorithm 2; diffusers 0.42,
``schedulers/scheduling_dpmsolver_multistep.py``, whose numbers these are.
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
from sdsetup.imaging.schedulers.sigma_spacing import Levels, respaced, timesteps_of
from sdsetup.imaging.schedulers.spacing import inner_timesteps
from sdsetup.imaging.schedulers.variance_exploding import as_floats, last_sigma
from sdsetup.imaging.schedulers.variance_preserving import check_distinct, flow_levels

# Below this many steps the last ones are taken with a lower order.
# Source: diffusers 0.42, scheduling_dpmsolver_multistep.py, ``lower_order_final``.
FEW_STEPS = 15


@dataclass(frozen=True, kw_only=True)
class DpmMultistep(DpmSolverPlan):
    """One evaluation a step, and the predictions of the ones before."""

    def wants_noise(self, state: State) -> bool:
        """Only the stochastic form, and not where it ends without noise."""
        return self.stochastic and self.sigmas[state.index + 1] > 0

    def advance(self, state: State, output: Floats, noise: Floats | None) -> State:
        """Integrate the extrapolated prediction to the next noise level."""
        history = (*state.history, self.predicted(state.sample, output, state.index))
        history = history[-self.settings.solver_order :]
        order = self._order(state)
        differences = self._differences(state.index, history[-order:])
        midpoint = self.settings.solver_type == "midpoint" and order == 2
        sample = self.step(state.sample, differences, state.index, state.index + 1, noise, midpoint=midpoint)
        return State(index=state.index + 1, sample=sample, begin=state.begin, history=history)

    def _order(self, state: State) -> int:
        few = self.settings.lower_order_final and len(self.timesteps) < FEW_STEPS
        left = len(self.timesteps) - state.index
        gentle_end = self.settings.euler_at_final or few or self.settings.final_sigmas_type == "zero"
        most = self.settings.solver_order
        if left == 1 and gentle_end:
            most = 1
        elif left == 2 and few:
            most = min(most, 2)
        return min(most, state.index - state.begin + 1)

    def _differences(self, index: int, predictions: tuple[Floats, ...]) -> tuple[Floats, ...]:
        """Return the newest prediction and its divided differences along lambda."""
        if len(predictions) == 1:
            return predictions
        lambdas = [self.lambda_(index + offset) for offset in (1, 0, -1)]
        step = lambdas[0] - lambdas[1]
        near = (lambdas[1] - lambdas[2]) / step
        slope: Floats = (predictions[-1] - predictions[-2]) * np.float32(1 / near)
        if len(predictions) == 2:
            return predictions[-1], slope
        far = (lambdas[2] - self.lambda_(index - 2)) / step
        bend: Floats = slope - (predictions[-2] - predictions[-3]) * np.float32(1 / far)
        return (
            predictions[-1],
            slope + np.float32(near / (near + far)) * bend,
            np.float32(1 / (near + far)) * bend,
        )


def _levels(settings: SchedulerConfig, options: Options) -> tuple[Levels, Levels]:
    """Return timesteps and falling sigmas, without the end."""
    table = noise_schedule.sigmas(settings)
    other = respaced(settings, table[::-1], options.steps)
    if other is not None:
        places = timesteps_of(other, table)
        rounded = settings.use_karras_sigmas or settings.use_lu_lambdas
        if rounded and settings.beta_schedule != "squaredcos_cap_v2":
            places = places.round()
        return places, other
    if settings.use_flow_sigmas:
        sigmas = flow_levels(settings, options.steps, options.mu)
        return sigmas * settings.num_train_timesteps, sigmas
    timesteps = inner_timesteps(settings, options.steps, last_timestep(settings))
    return timesteps.astype(np.float64), np.interp(timesteps, np.arange(len(table)), table)


def make(settings: SchedulerConfig, options: Options) -> DpmMultistep:
    """Plan ``steps`` evaluations.

    Raises:
        UsageError: More steps than the configuration has different noise levels.
    """
    timesteps, levels = _levels(settings, options)
    sigmas = as_floats(np.append(levels, last_sigma(settings)))
    check_distinct(sigmas, "dpmpp_2m", options.steps)
    return DpmMultistep(
        settings=settings,
        timesteps=tuple(float(int(place)) for place in timesteps),
        steps=len(timesteps),
        sigmas=sigmas,
    )


_FIELDS = (
    *SOLVER_FIELDS,
    *config.spacing("linspace"),
    config.flag("lower_order_final", default=True),
    config.flag("euler_at_final", default=False),
    config.flag("use_lu_lambdas", default=False),
    config.ZERO_SNR,
)
ENTRY = Entry(
    name="dpmpp_2m",
    class_name="DPMSolverMultistepScheduler",
    fields=(
        *_FIELDS,
        # The stochastic form has a name of its own; where it is not the one asked for, it means nothing.
        config.choice(
            "algorithm_type",
            "dpmsolver++",
            "dpmsolver",
            same_as={
                "deis": "dpmsolver++",
                "sde-dpmsolver++": "dpmsolver++",
            },
        ),
    ),
    make=make,
    check=check_final,
    options=("mu",),
)
SDE_ENTRY = Entry(
    name="dpmpp_2m_sde",
    class_name="DPMSolverMultistepScheduler",
    fields=(*_FIELDS, config.choice("algorithm_type", "sde-dpmsolver++")),
    make=make,
    fixed={"algorithm_type": "sde-dpmsolver++"},
    options=("mu",),
)

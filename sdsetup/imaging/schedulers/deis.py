"""Diffusion exponential integrator sampler: a polynomial in log rho through the last predicted noises.

Source: Zhang and Chen 2022, arXiv:2204.13902, log-rho multi-step form; diffusers 0.42,
``schedulers/scheduling_deis_multistep.py``, whose numbers these are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from sdsetup.imaging.schedulers import config
from sdsetup.imaging.schedulers import noise as noise_schedule
from sdsetup.imaging.schedulers.config import SchedulerConfig
from sdsetup.imaging.schedulers.dpm_multistep import FEW_STEPS
from sdsetup.imaging.schedulers.entry import Entry, Options
from sdsetup.imaging.schedulers.protocol import Floats, State
from sdsetup.imaging.schedulers.sigma_spacing import respaced, timesteps_of
from sdsetup.imaging.schedulers.spacing import inner_timesteps
from sdsetup.imaging.schedulers.variance_exploding import as_floats
from sdsetup.imaging.schedulers.variance_preserving import UnitVariancePlan, check_distinct, flow_levels


def _integral(rho: float, node: float, others: tuple[float, ...]) -> float:
    """Return the antiderivative at ``rho`` of the Lagrange polynomial in log rho that is 1 at ``node``."""
    log, nodes = math.log(rho), [math.log(other) for other in others]
    scale = math.prod(math.log(node) - other for other in nodes)
    if len(nodes) == 1:
        return rho * (log - nodes[0] - 1) / scale
    both = nodes[0] * nodes[1] - (nodes[0] + nodes[1]) * (log - 1)
    return rho * (both + log**2 - 2 * log + 2) / scale


@dataclass(frozen=True, kw_only=True)
class Deis(UnitVariancePlan):
    """One evaluation a step, and the predicted noises of the ones before."""

    def advance(self, state: State, output: Floats, noise: Floats | None) -> State:  # noqa: ARG002
        """Integrate the polynomial to the next noise level."""
        predicted = self.clean(state.sample, output, state.index)
        signal = np.float32(self.signal(state.index))
        noise_only = state.sample - signal * predicted
        epsilon: Floats = np.divide(noise_only, np.float32(self.noise(state.index)))
        history = (*state.history, epsilon)[-self.settings.solver_order :]
        order = self._order(state)
        following = self.signal(state.index + 1)
        sample = np.float32(following / self.signal(state.index)) * state.sample
        for weight, past in zip(self._weights(state.index, order), reversed(history), strict=False):
            sample = sample + np.float32(following * weight) * past
        return State(index=state.index + 1, sample=sample, begin=state.begin, history=history)

    def _order(self, state: State) -> int:
        left = len(self.timesteps) - state.index
        few = self.settings.lower_order_final and len(self.timesteps) < FEW_STEPS
        most = min(self.settings.solver_order, left) if few else self.settings.solver_order
        return min(most, state.index - state.begin + 1)

    def _weights(self, index: int, order: int) -> list[float]:
        """Return the weight of each remembered noise, newest first."""
        target, *nodes = [self._rho(index + 1 - offset) for offset in range(order + 1)]
        if order == 1:
            return [target - nodes[0]]
        weights = []
        for place, node in enumerate(nodes):
            others = tuple(nodes[:place] + nodes[place + 1 :])
            weights.append(_integral(target, node, others) - _integral(nodes[0], node, others))
        return weights

    def _rho(self, index: int) -> float:
        return self.noise(index) / self.signal(index)


def make(settings: SchedulerConfig, options: Options) -> Deis:
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
        timesteps = inner_timesteps(settings, options.steps, settings.num_train_timesteps).astype(np.float64)
        levels = np.interp(timesteps, np.arange(len(table)), table)
    # Sigmas of their own spacing end where the last of them is: the last step moves nothing.
    end = float(table[0]) if other is None and not settings.use_flow_sigmas else float(levels[-1])
    sigmas = as_floats(np.append(levels, end))
    check_distinct(sigmas[:-1], "deis", options.steps)
    return Deis(
        settings=settings,
        timesteps=tuple(float(int(place)) for place in timesteps),
        steps=options.steps,
        sigmas=sigmas,
    )


ENTRY = Entry(
    name="deis",
    class_name="DEISMultistepScheduler",
    fields=(
        *config.betas(0.0001, 0.02),
        config.predictions("v_prediction", "sample", "flow_prediction"),
        config.whole("solver_order", 2, low=1, high=3),
        config.flag("lower_order_final", default=True),
        *config.spacing("linspace"),
        *config.SIGMA_SPACINGS,
        *config.FLOW_SIGMAS,
        config.NO_THRESHOLDING,
    ),
    make=make,
    options=("mu",),
)

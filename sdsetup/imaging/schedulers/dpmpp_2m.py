"""DPM-Solver++ in its second-order multi-step form, and its stochastic twin.

Source: Lu et al. 2022, arXiv:2211.01095, algorithm 2; diffusers 0.42,
``schedulers/scheduling_dpmsolver_multistep.py``, whose numbers these are. With sigma as noise over
signal, its lambda is -log(sigma), so exp(-h) is a plain ratio of two sigmas.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sdsetup.errors import SetupError
from sdsetup.imaging.schedulers import noise
from sdsetup.imaging.schedulers.config import SchedulerConfig
from sdsetup.imaging.schedulers.protocol import Floats, State
from sdsetup.imaging.schedulers.sigma_path import last_sigma, respaced

# Below this many steps the last ones are taken with a lower order.
# Source: diffusers 0.42, scheduling_dpmsolver_multistep.py, ``lower_order_final``.
_FEW_STEPS = 15


def _signal(sigma: float) -> float:
    """Return the signal's factor at unit variance."""
    return 1 / math.sqrt(sigma**2 + 1)


@dataclass(frozen=True, kw_only=True)
class DpmPlusPlus:
    """One evaluation a step, and the clean image predicted by the one before."""

    settings: SchedulerConfig
    timesteps: tuple[float, ...]
    sigmas: tuple[float, ...]

    def start(self, noise: Floats) -> State:
        """Begin with unit normal noise."""
        return State(index=0, sample=noise)

    def model_input(self, state: State) -> Floats:
        """Return the sample as it is: this form keeps it at unit variance."""
        return state.sample

    def wants_noise(self, state: State) -> bool:
        """Only the stochastic form, and not where it ends without noise."""
        return self.settings.algorithm_type == "sde-dpmsolver++" and self.sigmas[state.index + 1] > 0

    def advance(self, state: State, output: Floats, noise: Floats | None) -> State:
        """Integrate the predicted clean image to the next noise level."""
        sigma, following = self.sigmas[state.index : state.index + 2]
        clean = self._clean(state.sample, output, sigma)
        decay = following / sigma
        stochastic = self.settings.algorithm_type == "sde-dpmsolver++"
        shrink = decay**2 if stochastic else decay
        keep = (following * _signal(following)) / (sigma * _signal(sigma)) * (decay if stochastic else 1)
        gain = _signal(following) * (1 - shrink)
        sample = np.float32(keep) * state.sample + np.float32(gain) * clean
        if self._second_order(state):
            step = math.log(sigma) - math.log(following)
            ratio = (math.log(self.sigmas[state.index - 1]) - math.log(sigma)) / step
            slope = (clean - state.history[-1]) * np.float32(1 / ratio)
            if self.settings.solver_type == "midpoint":
                sample = sample + np.float32(0.5 * gain) * slope
            else:
                width = 2 * step if stochastic else step
                sample = sample + np.float32(_signal(following) * ((shrink - 1) / width + 1)) * slope
        if noise is not None:
            spread = following * _signal(following) * math.sqrt(1 - decay**2)
            sample = sample + np.float32(spread) * noise
        return State(index=state.index + 1, sample=sample, history=(clean,))

    def _second_order(self, state: State) -> bool:
        last = state.index == len(self.timesteps) - 1
        gentle_end = (
            self.settings.euler_at_final
            or (self.settings.lower_order_final and len(self.timesteps) < _FEW_STEPS)
            or self.settings.final_sigmas_type == "zero"
        )
        return self.settings.solver_order > 1 and state.index > 0 and not (last and gentle_end)

    def _clean(self, sample: Floats, output: Floats, sigma: float) -> Floats:
        signal = np.float32(_signal(sigma))
        noise = np.float32(sigma * _signal(sigma))
        clean = output
        if self.settings.prediction_type == "epsilon":
            clean = (sample - noise * output) * np.float32(1 / _signal(sigma))
        elif self.settings.prediction_type == "v_prediction":
            clean = signal * sample - noise * output
        return clean


def _timesteps(settings: SchedulerConfig, steps: int, table: Floats) -> NDArray[np.int64]:
    """Return falling timesteps: one more point is laid out than visited, where the trajectory ends."""
    # lambda = -log(sigma) rises as the table falls.
    clipped = int(np.searchsorted(-np.log(table[::-1].astype(np.float64)), settings.lambda_min_clipped))
    end = settings.num_train_timesteps - clipped
    if settings.timestep_spacing == "linspace":
        return np.linspace(0, end - 1, steps + 1).round()[:0:-1].astype(np.int64)
    if settings.timestep_spacing == "leading":
        spaced = (np.arange(steps + 1) * (end // (steps + 1)))[:0:-1]
        return spaced.astype(np.int64) + settings.steps_offset
    return np.arange(end, 0, -settings.num_train_timesteps / steps).round().astype(np.int64) - 1


def make(settings: SchedulerConfig, steps: int) -> DpmPlusPlus:
    """Plan ``steps`` evaluations.

    Raises:
        SetupError: More steps than the configuration has different noise levels.
    """
    table = noise.sigmas(settings)
    timesteps = _timesteps(settings, steps, table)
    other = respaced(settings, table[::-1].astype(np.float64), steps)
    if other is None:
        sigmas = np.interp(timesteps, np.arange(len(table)), table)
    else:
        sigmas, places = other
        round_them = settings.use_karras_sigmas and settings.beta_schedule != "squaredcos_cap_v2"
        timesteps = (places.round() if round_them else places).astype(np.int64)
    sigmas = np.append(sigmas, last_sigma(settings)).astype(np.float32)
    if len(set(sigmas.tolist())) < len(sigmas):
        raise SetupError(
            "scheduler.too_many_steps",
            f"the dpmpp_2m scheduler cannot lay out {steps} different noise levels.",
            "use fewer --steps, or another --scheduler.",
        )
    return DpmPlusPlus(
        settings=settings,
        timesteps=tuple(map(float, timesteps)),
        sigmas=tuple(float(sigma) for sigma in sigmas),
    )

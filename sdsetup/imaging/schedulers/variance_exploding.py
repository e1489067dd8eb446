"""The path on which noise is added to the sample and the signal keeps its size: sigmas.

Source: Karras et al. 2022, arXiv:2206.00364; diffusers 0.42, ``schedulers/scheduling_euler_discrete.py``
and the classes made after it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from sdsetup.imaging.schedulers import noise as noise_schedule
from sdsetup.imaging.schedulers.config import SchedulerConfig
from sdsetup.imaging.schedulers.plan import Plan
from sdsetup.imaging.schedulers.protocol import Floats, State
from sdsetup.imaging.schedulers.sigma_spacing import Levels, respaced, timesteps_of
from sdsetup.imaging.schedulers.spacing import real_timesteps


@dataclass(frozen=True, kw_only=True)
class SigmaPlan(Plan):
    """A trajectory along falling sigmas.

    Attributes:
        sigmas: The noise level at the beginning of each step, and where the last one ends.
    """

    sigmas: tuple[float, ...]

    def start(self, noise: Floats) -> State:
        """Begin at the first noise level."""
        top = max(self.sigmas)
        # "leading" stops short of the noisiest timestep, so some signal is added to the variance.
        leading = self.settings.timestep_spacing == "leading"
        return State(index=0, sample=noise * np.float32(math.sqrt(top**2 + 1) if leading else top))

    def model_input(self, state: State) -> Floats:
        """Return the sample at unit variance, as the model was trained."""
        return state.sample / np.float32(math.sqrt(self.sigma_seen(state.index) ** 2 + 1))

    def level(self, index: int) -> float:
        """Return the sigma that diffusers' class holds for an evaluation.

        Between the two evaluations of a step it is where the step ends.
        """
        return self.sigmas[(index + self.evaluations_per_step - 1) // self.evaluations_per_step]

    def sigma_seen(self, index: int) -> float:
        """Return the noise level at which the model is evaluated."""
        return self.level(index)

    def _noised(self, clean: Floats, noise: Floats, index: int) -> Floats:
        return clean + noise * np.float32(self.level(index))

    def derivative(self, sample: Floats, output: Floats, sigma: float) -> Floats:
        """Return the slope of the sample along sigma, which is the predicted noise.

        By way of the clean sample whatever the model predicts: at high noise the rounding of these very
        float32 operations is what later steps are sensitive to.

        Source: Karras et al. 2022, arXiv:2206.00364, equation 3; Salimans and Ho 2022,
        arXiv:2202.00512, for v.
        """
        return (sample - self.clean(sample, output, sigma)) / np.float32(sigma)

    def clean(self, sample: Floats, output: Floats, sigma: float) -> Floats:
        """Return the predicted sample without noise."""
        if self.settings.prediction_type == "epsilon":
            clean = sample - np.float32(sigma) * output
        elif self.settings.prediction_type == "sample":
            clean = output
        else:
            root = math.sqrt(sigma**2 + 1)
            clean = output * np.float32(-sigma / root) + sample * np.float32(1 / root**2)
        if self.settings.clip_sample:
            limit = np.float32(self.settings.clip_sample_range)
            clean = np.clip(clean, -limit, limit)
        return clean

    def denoised(self, state: State, output: Floats) -> Floats:
        """Return the latents without noise that the model's output points to."""
        return self.clean(state.sample, output, self.sigma_seen(state.index))


def sigma_levels(settings: SchedulerConfig, steps: int) -> tuple[Floats, Levels]:
    """Lay out the sigmas at the beginning of each step, without the end.

    Returns:
        Timesteps, float32 or float64 ``[steps]``, and falling sigmas, float64 ``[steps]``.
    """
    timesteps = real_timesteps(settings, steps)
    table = noise_schedule.sigmas(settings)
    levels = np.interp(timesteps, np.arange(len(table)), table)
    if settings.interpolation_type == "log_linear":
        # One more than steps: the trajectory ends before the last.
        ends = float(np.log(table[-1])), float(np.log(table[0]))
        levels = np.exp(noise_schedule.linspace(*ends, steps + 1)).astype(np.float64)
    other = respaced(settings, levels, steps)
    if other is None:
        return timesteps, levels
    return timesteps_of(other, table).astype(np.float32), other


def last_sigma(settings: SchedulerConfig) -> float:
    """Return the noise level that a trajectory ends on."""
    return float(noise_schedule.sigmas(settings)[0]) if settings.final_sigmas_type == "sigma_min" else 0.0


def as_floats(values: Floats | Levels) -> tuple[float, ...]:
    """Round to float32, as the published numbers are."""
    return tuple(float(value) for value in values.astype(np.float32))

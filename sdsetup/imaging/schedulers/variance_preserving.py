"""The path on which signal and noise keep unit variance together, seen through sigmas.

Source: Lu et al. 2022, arXiv:2211.01095; diffusers 0.42, ``schedulers/scheduling_dpmsolver_multistep.py``
and the classes made after it. With flow sigmas signal and noise add up to one and not their squares
(Liu et al. 2022, arXiv:2209.03003).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from sdsetup.errors import UsageError
from sdsetup.imaging.schedulers.config import SchedulerConfig
from sdsetup.imaging.schedulers.plan import Plan
from sdsetup.imaging.schedulers.protocol import Floats, State
from sdsetup.imaging.schedulers.sigma_spacing import Levels


@dataclass(frozen=True, kw_only=True)
class UnitVariancePlan(Plan):
    """A trajectory whose sample keeps unit variance.

    Attributes:
        sigmas: One more than ``timesteps``: the last is where the trajectory ends.
    """

    sigmas: tuple[float, ...]

    def signal(self, index: int) -> float:
        """Return the signal's factor (alpha in the papers)."""
        # float32 as in diffusers: little noise divides what these factors' rounding leaves.
        sigma, one = np.float32(self.sigmas[index]), np.float32(1)
        return float(one - sigma if self.settings.use_flow_sigmas else one / np.sqrt(sigma**2 + one))

    def noise(self, index: int) -> float:
        """Return the noise's factor (sigma in the papers)."""
        sigma = np.float32(self.sigmas[index])
        return float(sigma if self.settings.use_flow_sigmas else sigma * np.float32(self.signal(index)))

    def lambda_(self, index: int) -> float:
        """Return the logarithm of signal over noise; infinity without noise."""
        noise = self.noise(index)
        return math.log(self.signal(index)) - math.log(noise) if noise > 0 else math.inf

    def clean(self, sample: Floats, output: Floats, index: int) -> Floats:
        """Return the predicted sample without noise."""
        signal, noise = np.float32(self.signal(index)), np.float32(self.noise(index))
        if self.settings.prediction_type == "epsilon":
            clean: Floats = np.divide(sample - noise * output, signal)
            return clean
        if self.settings.prediction_type == "v_prediction":
            return signal * sample - noise * output
        if self.settings.prediction_type == "flow_prediction":
            return sample - np.float32(self.sigmas[index]) * output
        return output

    def denoised(self, state: State, output: Floats) -> Floats:
        """Return the latents without noise that the model's output points to."""
        return self.clean(state.sample, output, state.index)

    def epsilon(self, sample: Floats, output: Floats, index: int) -> Floats:
        """Return the predicted noise."""
        if self.settings.prediction_type == "epsilon":
            return output
        signal = np.float32(self.signal(index))
        noise_only = sample - signal * self.clean(sample, output, index)
        epsilon: Floats = np.divide(noise_only, np.float32(self.noise(index)))
        return epsilon

    def _noised(self, clean: Floats, noise: Floats, index: int) -> Floats:
        return np.float32(self.signal(index)) * clean + np.float32(self.noise(index)) * noise


def flow_levels(settings: SchedulerConfig, steps: int, mu: float | None) -> Levels:
    """Return the falling noise levels of a model trained with flow matching, float64 ``[steps]``.

    Source: diffusers 0.42, ``use_flow_sigmas`` in schedulers/scheduling_dpmsolver_multistep.py.
    """
    shift = settings.flow_shift
    if settings.use_dynamic_shifting and mu is not None:
        shift = math.exp(mu)
    rising = 1 - np.linspace(1, 1 / settings.num_train_timesteps, steps + 1)
    shifted: Levels = shift * rising / (1 + (shift - 1) * rising)
    return shifted[:0:-1]


def check_distinct(sigmas: tuple[float, ...], scheduler: str, steps: int) -> None:
    """Refuse noise levels between which no step can be made.

    Raises:
        UsageError: More steps than the configuration has different noise levels.
    """
    if any(following >= sigma for sigma, following in pairwise(sigmas)):
        raise UsageError(
            "scheduler.too_many_steps",
            f"the {scheduler} scheduler cannot lay out {steps} different noise levels.",
            "use fewer --steps, or another --scheduler.",
        )

"""One step of DPM-Solver, whichever evaluations its differences come from.

Source: Lu et al. 2022, arXiv:2206.00927 (predicting noise) and arXiv:2211.01095 (predicting the clean
sample, and the stochastic form); diffusers 0.42, ``schedulers/scheduling_dpmsolver_multistep.py`` and
``scheduling_dpmsolver_singlestep.py``, whose numbers these are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from sdsetup.errors import SetupError
from sdsetup.imaging.schedulers import config
from sdsetup.imaging.schedulers import noise as noise_schedule
from sdsetup.imaging.schedulers.config import Field, SchedulerConfig
from sdsetup.imaging.schedulers.protocol import Floats
from sdsetup.imaging.schedulers.variance_preserving import UnitVariancePlan


@dataclass(frozen=True, kw_only=True)
class DpmSolverPlan(UnitVariancePlan):
    """A trajectory of DPM-Solver steps."""

    @property
    def stochastic(self) -> bool:
        """Whether steps add fresh noise."""
        return self.settings.algorithm_type == "sde-dpmsolver++"

    def predicted(self, sample: Floats, output: Floats, index: int) -> Floats:
        """Return what the solver extrapolates: the clean sample, or the noise for "dpmsolver"."""
        if self.settings.algorithm_type == "dpmsolver":
            return self.epsilon(sample, output, index)
        return self.clean(sample, output, index)

    def step(
        self,
        sample: Floats,
        differences: tuple[Floats, ...],
        start: int,
        end: int,
        noise: Floats | None,
        *,
        midpoint: bool,
    ) -> Floats:
        """Go from one noise level to another.

        Args:
            sample: At the noise level of evaluation ``start``.
            differences: The prediction there, and its first and second differences along lambda.
            start: An evaluation.
            end: A later one, or where the trajectory ends.
            noise: Unit normal noise, for the stochastic form.
            midpoint: Whether the first difference is taken at the middle, not integrated.
        """
        step = self.lambda_(end) - self.lambda_(start)
        if self.settings.algorithm_type == "dpmsolver":
            keep, gain, width = self.signal(end) / self.signal(start), -self.noise(end), step
        else:
            keep, gain, width = self.noise(end) / self.noise(start), -self.signal(end), -step
            if self.stochastic:
                keep, width = keep * math.exp(-step), 2 * width
        growth = math.expm1(width)
        weights = [growth]
        if len(differences) > 1:
            weights.append(0.5 * growth if midpoint else growth / width - 1)
        if len(differences) > 2:
            # The stochastic form's sign is that of diffusers; k-diffusion's DPM++ 3M SDE has the other.
            half = -0.5 if self.stochastic else 0.5
            weights.append((growth - width) / width**2 - half)
        moved = np.float32(keep) * sample
        for weight, difference in zip(weights, differences, strict=True):
            moved = moved + np.float32(gain * weight) * difference
        if noise is not None:
            spread = self.noise(end) * math.sqrt(-math.expm1(-2 * step))
            moved = moved + np.float32(spread) * noise
        return moved


def last_timestep(settings: SchedulerConfig) -> int:
    """Return how many of the training timesteps are visited: the noisiest may be cut off."""
    signal = noise_schedule.signal_left(settings)
    lambdas = np.log(np.sqrt(signal)) - np.log(np.sqrt(np.float32(1) - signal))
    return settings.num_train_timesteps - int(np.searchsorted(lambdas[::-1], settings.lambda_min_clipped))


def check_final(settings: SchedulerConfig) -> None:
    """Refuse to end without noise where the noise is what the solver extrapolates.

    Raises:
        SetupError: ``dpmsolver`` with ``final_sigmas_type`` zero.
    """
    if settings.algorithm_type == "dpmsolver" and settings.final_sigmas_type == "zero":
        raise SetupError(
            "scheduler.unsupported",
            "scheduler_config.json says algorithm_type = 'dpmsolver' and final_sigmas_type = 'zero'; "
            "that algorithm is only defined with final_sigmas_type = 'sigma_min'.",
        )


SOLVER_FIELDS: tuple[Field, ...] = (
    *config.betas(0.0001, 0.02),
    config.predictions("v_prediction", "sample", "flow_prediction"),
    config.whole("solver_order", 2, low=1, high=3),
    config.choice(
        "solver_type", "midpoint", "heun", same_as=dict.fromkeys(("logrho", "bh1", "bh2"), "midpoint")
    ),
    *config.SIGMA_SPACINGS,
    *config.FLOW_SIGMAS,
    config.FINAL_SIGMA,
    config.lambda_min_clipped(),
    config.absent("variance_type", "learned", "learned_range", instead="models of fixed variance"),
    config.NO_THRESHOLDING,
)

"""The falling noise levels of a trajectory, for the schedulers that think in sigmas."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sdsetup.imaging.schedulers import noise
from sdsetup.imaging.schedulers.config import SchedulerConfig
from sdsetup.imaging.schedulers.protocol import Floats
from sdsetup.imaging.schedulers.spacing import real_timesteps

# Source: Karras et al. 2022, arXiv:2206.00364, table 1: rho = 7 for their sampler.
_KARRAS_RHO = 7.0


@dataclass(frozen=True, kw_only=True)
class SigmaPath:
    """Noise levels from the first to the last point of a trajectory.

    Attributes:
        timesteps: What the UNet is told at each evaluation.
        sigmas: One more than ``timesteps``: the last is where the trajectory ends.
        initial_scale: What unit normal noise is multiplied by at the start.
    """

    timesteps: tuple[float, ...]
    sigmas: tuple[float, ...]
    initial_scale: float

    def scaled(self, sample: Floats, index: int) -> Floats:
        """Bring a sample of this path's noise level to unit variance, as the UNet was trained."""
        return sample * np.float32(1 / math.sqrt(self.sigmas[index] ** 2 + 1))


def respaced(
    settings: SchedulerConfig, levels: NDArray[np.float64], steps: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Return sigmas and matching timesteps of a Karras or exponential spacing, if one is asked for.

    Args:
        settings: Says which spacing, and may set its ends.
        levels: Falling sigmas whose ends are used otherwise.
        steps: How many to return.

    Source: Karras et al. 2022, arXiv:2206.00364, equation 5; the exponential one is equal steps in log sigma.
    """
    if not (settings.use_karras_sigmas or settings.use_exponential_sigmas):
        return None
    low = float(levels[-1]) if settings.sigma_min is None else settings.sigma_min
    high = float(levels[0]) if settings.sigma_max is None else settings.sigma_max
    if settings.use_karras_sigmas:
        ends = high ** (1 / _KARRAS_RHO), low ** (1 / _KARRAS_RHO)
        sigmas = (ends[0] + np.linspace(0, 1, steps) * (ends[1] - ends[0])) ** _KARRAS_RHO
    else:
        sigmas = np.exp(np.linspace(math.log(high), math.log(low), steps))
    table = np.log(noise.sigmas(settings)).astype(np.float64)
    return sigmas, np.interp(np.log(np.maximum(sigmas, 1e-10)), table, np.arange(len(table)))


def last_sigma(settings: SchedulerConfig) -> float:
    """Return the noise level that a trajectory ends on."""
    return float(noise.sigmas(settings)[0]) if settings.final_sigmas_type == "sigma_min" else 0.0


def sigma_path(settings: SchedulerConfig, steps: int) -> SigmaPath:
    """Lay out the path of the Euler and LMS schedulers."""
    timesteps = real_timesteps(settings, steps).astype(np.float64)
    table = noise.sigmas(settings)
    sigmas = np.interp(timesteps, np.arange(len(table)), table)
    other = respaced(settings, sigmas, steps)
    if other is not None:
        sigmas, timesteps = other
    sigmas = np.append(sigmas, last_sigma(settings)).astype(np.float32)
    # "leading" stops short of the noisiest timestep, so some signal is added to the variance.
    top = float(sigmas.max())
    leading = settings.timestep_spacing == "leading"
    return SigmaPath(
        timesteps=tuple(float(t) for t in timesteps.astype(np.float32)),
        sigmas=tuple(float(sigma) for sigma in sigmas),
        initial_scale=math.sqrt(top**2 + 1) if leading else top,
    )


def derivative(settings: SchedulerConfig, sample: Floats, output: Floats, sigma: float) -> Floats:
    """Return the slope of the sample along sigma, which is the predicted noise.

    Source: Karras et al. 2022, arXiv:2206.00364, equation 3; Salimans and Ho 2022, arXiv:2202.00512, for v.
    """
    if settings.prediction_type == "epsilon":
        return output
    if settings.prediction_type == "sample":
        return (sample - output) * np.float32(1 / sigma)
    clean = output * np.float32(-sigma / math.sqrt(sigma**2 + 1)) + sample * np.float32(1 / (sigma**2 + 1))
    return (sample - clean) * np.float32(1 / sigma)

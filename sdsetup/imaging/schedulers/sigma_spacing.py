"""Noise levels spaced by themselves and not by timesteps: Karras, exponential, beta."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from sdsetup.errors import SetupError
from sdsetup.imaging.schedulers.beta_quantile import beta_quantile
from sdsetup.imaging.schedulers.config import CORRECT_IT, SchedulerConfig
from sdsetup.imaging.schedulers.protocol import Floats

Levels = NDArray[np.float64]

# Source: Karras et al. 2022, arXiv:2206.00364, table 1: rho = 7 for their sampler.
_KARRAS_RHO = 7.0
# Source: Lee et al. 2024, arXiv:2407.12173: alpha = beta = 0.6.
_BETA_SHAPE = 0.6


def respaced(settings: SchedulerConfig, levels: NDArray[np.floating], steps: int) -> Levels | None:
    """Return falling sigmas of another spacing, float64 ``[steps]``; None where none is asked for.

    Args:
        settings: Says which spacing, and may set its ends.
        levels: Falling sigmas whose ends are used otherwise.
        steps: How many to return.

    Raises:
        SetupError: The configuration's ends are in the wrong order.

    Source: Karras et al. 2022, arXiv:2206.00364, equation 5; exponential is equal steps in log sigma, and
    so is Lu et al. 2022, arXiv:2206.00927, with rho = 1 as diffusers 0.42 has it; Lee et al. 2024,
    arXiv:2407.12173, for beta.
    """
    low = float(levels[-1]) if settings.sigma_min is None else settings.sigma_min
    high = float(levels[0]) if settings.sigma_max is None else settings.sigma_max
    wanted = settings.use_karras_sigmas or settings.use_exponential_sigmas or settings.use_beta_sigmas
    if wanted and low > high:
        raise SetupError(
            "scheduler.config",
            f"scheduler_config.json leaves sigmas from {high:g} down to {low:g}: sigma_min is too large.",
            CORRECT_IT,
        )
    if settings.use_karras_sigmas:
        ends = high ** (1 / _KARRAS_RHO), low ** (1 / _KARRAS_RHO)
        karras: Levels = (ends[0] + np.linspace(0, 1, steps) * (ends[1] - ends[0])) ** _KARRAS_RHO
        return karras
    if settings.use_lu_lambdas:
        ends = float(np.log(levels[0])), float(np.log(levels[-1]))
        return np.exp(ends[0] + np.linspace(0, 1, steps) * (ends[1] - ends[0]))
    if settings.use_exponential_sigmas:
        return np.exp(np.linspace(math.log(high), math.log(low), steps))
    if settings.use_beta_sigmas:
        return low + beta_quantile(1 - np.linspace(0, 1, steps), _BETA_SHAPE) * (high - low)
    return None


def timesteps_of(sigmas: NDArray[np.floating], table: Floats) -> Levels:
    """Return the timesteps of noise levels, float64: linear in log sigma between two entries.

    Args:
        sigmas: Noise levels; those beyond the table's ends get its ends.
        table: The training timesteps' sigmas, rising.

    Source: diffusers 0.42, ``_sigma_to_t`` in schedulers/scheduling_euler_discrete.py.
    """
    logs = np.log(table)
    wanted = np.log(np.maximum(sigmas, 1e-10))
    low = np.clip(np.searchsorted(logs, wanted, side="right") - 1, 0, len(logs) - 2)
    share = np.clip((logs[low] - wanted) / (logs[low] - logs[low + 1]), 0, 1)
    places: Levels = (1 - share) * low + share * (low + 1)
    return places

"""How much noise a latent carries at each training timestep."""

from __future__ import annotations

import math

import numpy as np

from sdsetup.imaging.schedulers.config import SchedulerConfig
from sdsetup.imaging.schedulers.protocol import Floats

# The smallest positive float16: close to no signal, and its sigma is still finite.
# Source: diffusers 0.42, schedulers/scheduling_euler_discrete.py, ``__init__``.
_ALMOST_NO_SIGNAL = 2.0**-24


def _linspace(start: float, end: float, count: int) -> Floats:
    """Space numbers evenly with float32 arithmetic from both ends, as torch.linspace does.

    The published schedules were made that way; float64 would differ in the last bits, which 1000
    products then amplify.
    """
    step = np.float32((np.float32(end) - np.float32(start)) / np.float32(max(count - 1, 1)))
    places = np.arange(count, dtype=np.float32)
    rising = np.float32(start) + step * places
    falling = np.float32(end) - step * (np.float32(count - 1) - places)
    return np.where(places < count // 2, rising, falling).astype(np.float32)


def _cosine_betas(count: int) -> Floats:
    """Betas of the squared cosine schedule.

    Source: Nichol and Dhariwal 2021, arXiv:2102.09672, equation 17; the cap of 0.999 is theirs.
    """

    def signal(time: float) -> float:
        return math.cos((time + 0.008) / 1.008 * math.pi / 2) ** 2

    betas = [min(1 - signal((i + 1) / count) / signal(i / count), 0.999) for i in range(count)]
    return np.array(betas, dtype=np.float32)


def _without_terminal_signal(betas: Floats) -> Floats:
    """Shift and scale betas so that the last timestep is pure noise.

    Source: Lin et al. 2023, arXiv:2305.08891, algorithm 1.
    """
    root = np.sqrt(_running_product(np.float32(1) - betas))
    first, last = root[0], root[-1]
    squared = ((root - last) * (first / (first - last))) ** 2
    alphas = np.concatenate([squared[:1], squared[1:] / squared[:-1]])
    return (np.float32(1) - alphas).astype(np.float32)


def _running_product(values: Floats) -> Floats:
    """Multiply up in float64 and round each result to float32, as torch.cumprod does on a CPU."""
    product: Floats = np.cumprod(values, dtype=np.float64).astype(np.float32)
    return product


def alphas_cumprod(settings: SchedulerConfig) -> Floats:
    """Return the share of signal power left at each training timestep, float32 ``[timesteps]``.

    Source: Ho et al. 2020, arXiv:2006.11239, equation 4; "scaled_linear" is linear in the root of
    beta, as in latent diffusion (Rombach et al. 2022, arXiv:2112.10752).
    """
    count = settings.num_train_timesteps
    if settings.trained_betas is not None:
        betas = np.array(settings.trained_betas, dtype=np.float32)
    elif settings.beta_schedule == "linear":
        betas = _linspace(settings.beta_start, settings.beta_end, count)
    elif settings.beta_schedule == "scaled_linear":
        betas = _linspace(settings.beta_start**0.5, settings.beta_end**0.5, count) ** 2
    else:
        betas = _cosine_betas(count)
    if settings.rescale_betas_zero_snr:
        betas = _without_terminal_signal(betas)
    return _running_product(np.float32(1) - betas)


def sigmas(settings: SchedulerConfig) -> Floats:
    """Return noise over signal at each training timestep, float32 ``[timesteps]``, rising.

    Source: Karras et al. 2022, arXiv:2206.00364, for the variance-exploding view of the same path.
    """
    signal = alphas_cumprod(settings)
    if settings.rescale_betas_zero_snr:
        signal[-1] = _ALMOST_NO_SIGNAL
    ratio: Floats = np.sqrt((np.float32(1) - signal) / signal)
    return ratio

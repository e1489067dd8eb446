"""How much noise a latent carries at each training timestep."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from sdsetup.errors import SetupError
from sdsetup.imaging.schedulers.config import CORRECT_IT, SchedulerConfig
from sdsetup.imaging.schedulers.protocol import Floats

# The smallest positive float16: close to no signal, and its sigma is still finite.
# Source: diffusers 0.42, schedulers/scheduling_euler_discrete.py, ``__init__``.
_ALMOST_NO_SIGNAL = 2.0**-24


def linspace(start: float, end: float, count: int) -> Floats:
    """Space ``count`` numbers evenly with float32 arithmetic from both ends, as torch.linspace does.

    The published schedules were made that way; float64 would differ in the last bits, which 1000
    products then amplify.
    """
    step = np.float32((np.float32(end) - np.float32(start)) / np.float32(max(count - 1, 1)))
    places = np.arange(count, dtype=np.float32)
    rising = np.float32(start) + step * places
    falling = np.float32(end) - step * (np.float32(count - 1) - places)
    return np.where(places < count // 2, rising, falling).astype(np.float32)


def _cosine(time: float) -> float:
    """Return the signal left at a share of training time.

    Source: Nichol and Dhariwal 2021, arXiv:2102.09672, equation 17.
    """
    return math.cos((time + 0.008) / 1.008 * math.pi / 2) ** 2


def _laplace(time: float) -> float:
    """Return the signal left at a share of training time.

    Source: Hang and Gu 2024, arXiv:2407.03297, table 1, as diffusers 0.42 has it.
    """
    lambda_ = -0.5 * math.copysign(1, 0.5 - time) * math.log(1 - 2 * abs(0.5 - time) + 1e-6)
    return math.sqrt(math.exp(lambda_) / (1 + math.exp(lambda_)))


def _exponential(time: float) -> float:
    """Return the signal left at a share of training time.

    Source: diffusers 0.42, ``betas_for_alpha_bar`` of schedulers/scheduling_heun_discrete.py.
    """
    return math.exp(-12 * time)


def _betas_for(signal: Callable[[float], float], count: int) -> Floats:
    """Return the betas that leave ``signal``, capped at 0.999 (Nichol and Dhariwal 2021)."""
    betas = [min(1 - signal((i + 1) / count) / signal(i / count), 0.999) for i in range(count)]
    return np.array(betas, dtype=np.float32)


def _betas(settings: SchedulerConfig) -> Floats:
    count, start, end = settings.num_train_timesteps, settings.beta_start, settings.beta_end
    if settings.trained_betas is not None:
        return np.array(settings.trained_betas, dtype=np.float32)
    match settings.beta_schedule:
        case "linear":
            return linspace(start, end, count)
        case "scaled_linear":
            squared: Floats = linspace(start**0.5, end**0.5, count) ** 2
            return squared
        case "sigmoid":
            share = np.float32(1) / (np.float32(1) + np.exp(-linspace(-6, 6, count)))
            return share * np.float32(end - start) + np.float32(start)
        case "laplace":
            return _betas_for(_laplace, count)
        case "exp":
            return _betas_for(_exponential, count)
        case _:
            return _betas_for(_cosine, count)


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

    Raises:
        SetupError: The betas leave nothing of the signal, or all of it.
    """
    betas = _betas(settings)
    signal = _running_product(np.float32(1) - betas)
    if not np.finfo(np.float32).tiny < signal[-1] < signal[0] < 1:
        raise SetupError(
            "scheduler.config",
            "scheduler_config.json describes no noise schedule: its betas leave "
            f"{signal[0]:.3g} of the signal at the first timestep and {signal[-1]:.3g} at the last.",
            CORRECT_IT,
        )
    if settings.rescale_betas_zero_snr:
        signal = _running_product(np.float32(1) - _without_terminal_signal(betas))
    return signal


def signal_left(settings: SchedulerConfig) -> Floats:
    """Return ``alphas_cumprod`` with a trace of signal at the end, so that its sigma is finite."""
    signal = alphas_cumprod(settings)
    if settings.rescale_betas_zero_snr:
        signal[-1] = _ALMOST_NO_SIGNAL
    return signal


def sigmas(settings: SchedulerConfig) -> Floats:
    """Return noise over signal at each training timestep, float32 ``[timesteps]``, rising.

    Source: Karras et al. 2022, arXiv:2206.00364, for the variance-exploding view of the same path.
    """
    signal = signal_left(settings)
    ratio: Floats = np.sqrt((np.float32(1) - signal) / signal)
    return ratio

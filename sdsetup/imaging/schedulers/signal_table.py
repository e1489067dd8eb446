"""The path seen through training's own table: how much signal is left at each whole timestep.

Source: Ho et al. 2020, arXiv:2006.11239, equation 4; Salimans and Ho 2022, arXiv:2202.00512, for v;
diffusers 0.42, ``schedulers/scheduling_ddim.py`` and the classes made after it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from sdsetup.errors import SetupError
from sdsetup.imaging.schedulers import noise as noise_schedule
from sdsetup.imaging.schedulers.config import SchedulerConfig
from sdsetup.imaging.schedulers.plan import Plan
from sdsetup.imaging.schedulers.protocol import Floats, State


@dataclass(frozen=True, kw_only=True)
class TablePlan(Plan):
    """A trajectory over whole timesteps.

    Attributes:
        table: Share of signal power left at each training timestep.
    """

    table: tuple[float, ...]

    @property
    def final(self) -> float:
        """The share of signal power at the end."""
        return 1.0 if self.settings.set_alpha_to_one else self.table[0]

    def share(self, index: int) -> float:
        """Return the share of signal power at an evaluation."""
        return self.table[int(self.timesteps[index])]

    def clean(self, sample: Floats, output: Floats, share: float) -> Floats:
        """Return the predicted sample without noise, clipped where the configuration says so."""
        signal, noise = np.float32(math.sqrt(share)), np.float32(math.sqrt(1 - share))
        if self.settings.prediction_type == "epsilon":
            clean = (sample - noise * output) * np.float32(1 / math.sqrt(share))
        elif self.settings.prediction_type == "sample":
            clean = output
        else:
            clean = signal * sample - noise * output
        if self.settings.clip_sample:
            limit = np.float32(self.settings.clip_sample_range)
            clean = np.clip(clean, -limit, limit)
        return clean

    def denoised(self, state: State, output: Floats) -> Floats:
        """Return the latents without noise that the model's output points to."""
        return self.clean(state.sample, output, self.share(state.index))

    def epsilon(self, sample: Floats, output: Floats, share: float) -> Floats:
        """Return the predicted noise."""
        signal, noise = np.float32(math.sqrt(share)), np.float32(math.sqrt(1 - share))
        if self.settings.prediction_type == "epsilon":
            return output
        if self.settings.prediction_type == "sample":
            return (sample - signal * output) * np.float32(1 / math.sqrt(1 - share))
        return signal * output + noise * sample

    def _noised(self, clean: Floats, noise: Floats, index: int) -> Floats:
        share = self.share(index)
        return np.float32(math.sqrt(share)) * clean + np.float32(math.sqrt(1 - share)) * noise


def signal_table(settings: SchedulerConfig) -> tuple[float, ...]:
    """Return the share of signal power left at each training timestep."""
    return tuple(float(share) for share in noise_schedule.alphas_cumprod(settings))


def check_terminal(settings: SchedulerConfig) -> None:
    """Refuse to divide by a signal of zero.

    Raises:
        SetupError: Zero terminal SNR in a model that predicts noise.
    """
    if settings.rescale_betas_zero_snr and settings.prediction_type == "epsilon":
        raise SetupError(
            "scheduler.unsupported",
            "scheduler_config.json says rescale_betas_zero_snr = True and prediction_type = 'epsilon'; "
            "without any signal at the last timestep this scheduler needs v_prediction or sample.",
        )

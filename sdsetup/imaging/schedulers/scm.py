"""Continuous-time consistency models: predict the image, add noise back, predict again; for Sana-Sprint.

Source: Lu and Song 2024, arXiv:2410.11081 (TrigFlow, sCM); Chen et al. 2025, arXiv:2503.09641, section 3.1,
for a model of flow matching that is used as one of TrigFlow; diffusers 0.42, ``schedulers/scheduling_scm.py``
and ``pipelines/sana/pipeline_sana_sprint.py``, whose numbers these are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sdsetup.imaging.schedulers import config
from sdsetup.imaging.schedulers.config import SchedulerConfig
from sdsetup.imaging.schedulers.entry import Entry, Options
from sdsetup.imaging.schedulers.plan import Plan
from sdsetup.imaging.schedulers.protocol import Floats, State

# Source: the defaults of SCMScheduler.set_timesteps.
_FIRST, _SECOND_OF_TWO = 1.57080, 1.3


@dataclass(frozen=True, kw_only=True)
class Scm(Plan):
    """One evaluation a step and fresh noise after each but the last.

    A sample is cos(angle) of the image and sin(angle) of the noise. ``timesteps`` are what the model is told:
    the noise's share on the straight path of flow matching with the same ratio of noise to image. Samples are
    in units of diffusers' ``sigma_data``, which cancels.

    Attributes:
        angles: Of each evaluation, falling, and of the end: 0.
    """

    angles: tuple[float, ...]

    def model_input(self, state: State) -> Floats:
        """Bring the sample from the circle to the straight path."""
        return state.sample * self._length(state.index)

    def wants_noise(self, state: State) -> bool:
        """Everywhere but at the last evaluation."""
        return state.index < len(self.timesteps) - 1

    def denoised(self, state: State, output: Floats) -> Floats:
        """Return the latents without noise that the model's output points to."""
        share, length = np.float32(self.timesteps[state.index]), self._length(state.index)
        velocity = np.float32(1 - 2 * share) * self.model_input(state)
        velocity = (velocity + np.float32(1 - 2 * share + 2 * share**2) * output) / length
        angle = np.float32(self.angles[state.index])
        clean: Floats = np.cos(angle) * state.sample - np.sin(angle) * velocity
        return clean

    def advance(self, state: State, output: Floats, noise: Floats | None) -> State:
        """Predict the image, and bring it to the next angle."""
        sample = self.denoised(state, output)
        if noise is not None:
            sample = self._noised(sample, noise, state.index + 1)
        return State(index=state.index + 1, sample=sample, begin=state.begin)

    def _noised(self, clean: Floats, noise: Floats, index: int) -> Floats:
        angle = np.float32(self.angles[index])
        noisy: Floats = np.cos(angle) * clean + np.sin(angle) * noise
        return noisy

    def _length(self, index: int) -> np.float32:
        """Return how long a pair of shares of noise and image is."""
        share = np.float32(self.timesteps[index])
        return np.float32(np.sqrt(share**2 + (1 - share) ** 2))


def make(settings: SchedulerConfig, options: Options) -> Scm:
    """Plan ``steps`` evaluations: at angles of their own where they are two, evenly spaced elsewhere."""
    if options.steps == 2:
        angles = np.array([_FIRST, _SECOND_OF_TWO, 0.0], dtype=np.float32)
    else:
        angles = np.linspace(_FIRST, 0.0, options.steps + 1).astype(np.float32)
    begin = angles[:-1]
    shares = np.sin(begin) / (np.cos(begin) + np.sin(begin))
    return Scm(
        settings=settings,
        timesteps=tuple(float(share) for share in shares),
        steps=options.steps,
        angles=tuple(float(angle) for angle in angles),
    )


ENTRY = Entry(
    name="scm",
    class_name="SCMScheduler",
    fields=(
        config.TRAIN_TIMESTEPS,
        config.choice("prediction_type", "trigflow"),
        config.number("sigma_data", 0.5, above=0),
    ),
    make=make,
    flow=True,
    alone=True,
)

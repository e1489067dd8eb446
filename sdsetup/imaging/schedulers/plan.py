"""What all schedulers share: where a trajectory may begin and where it is handed over."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from sdsetup.errors import UsageError
from sdsetup.imaging.schedulers.config import SchedulerConfig
from sdsetup.imaging.schedulers.protocol import Floats, State


@dataclass(frozen=True, kw_only=True)
class Plan(ABC):
    """A trajectory with its timesteps.

    Attributes:
        settings: The configuration.
        timesteps: What the model is told at each evaluation.
        steps: Steps that were asked for.
    """

    evaluations_per_step: ClassVar[int] = 1

    settings: SchedulerConfig
    timesteps: tuple[float, ...]
    steps: int

    def start(self, noise: Floats) -> State:
        """Begin with unit normal noise."""
        return State(index=0, sample=noise)

    def resume(self, sample: Floats, index: int) -> State:
        """Go on from a sample that already carries the noise of evaluation ``index``."""
        end = len(self.timesteps)
        if not 0 <= index <= end or (index < end and index % self.evaluations_per_step):
            message = f"evaluation {index} of {end} is no beginning of a step."
            raise ValueError(message)
        return State(index=index, sample=sample, begin=index)

    def first_index(self, strength: float) -> int:
        """Return where image to image begins.

        Source: diffusers 0.42, ``get_timesteps`` of the image-to-image pipelines.
        """
        self._check_strength(strength)
        skipped = self.steps - min(int(self.steps * strength), self.steps)
        return min(skipped * self.evaluations_per_step, len(self.timesteps))

    def split_index(self, fraction: float) -> int:
        """Return how many evaluations a base model makes before a refiner takes over.

        Source: diffusers 0.42, ``denoising_end`` of the pipelines that have it.
        """
        cutoff = self._cutoff(fraction)
        return sum(timestep >= cutoff for timestep in self.timesteps)

    def refiner_index(self, fraction: float) -> int:
        """Return the evaluation that a refiner begins with.

        Source: diffusers 0.42, ``denoising_start`` in ``get_timesteps`` of the image-to-image
        pipelines that have it. A step of two evaluations is not cut in the middle: the refiner
        begins with the first of them.
        """
        cutoff = self._cutoff(fraction)
        left = sum(timestep < cutoff for timestep in self.timesteps)
        if self.evaluations_per_step == 2 and left % 2 == 0:
            left += 1
        return len(self.timesteps) - min(left, len(self.timesteps))

    def model_input(self, state: State) -> Floats:
        """Return the sample as it is."""
        return state.sample

    def wants_noise(self, state: State) -> bool:  # noqa: ARG002 - the protocol's signature
        """Never, unless a scheduler says otherwise."""
        return False

    def noised(self, clean: Floats, noise: Floats, index: int) -> Floats:
        """Bring clean latents to the noise level of an evaluation."""
        if index >= len(self.timesteps):
            return clean
        return self._noised(clean, noise, index)

    @abstractmethod
    def _noised(self, clean: Floats, noise: Floats, index: int) -> Floats:
        """Mix latents and noise as before evaluation ``index``."""

    @abstractmethod
    def denoised(self, state: State, output: Floats) -> Floats:
        """Return the latents without noise that the model's output points to."""

    @abstractmethod
    def advance(self, state: State, output: Floats, noise: Floats | None) -> State:
        """Take the model's output and go one evaluation further."""

    def _check_strength(self, strength: float) -> None:
        if not 0 <= strength <= 1:
            raise UsageError(
                "scheduler.strength",
                f"--strength {strength:g} is out of range: it is a number from 0 to 1.",
                "0.5 to 0.8 is usual.",
            )

    def _cutoff(self, fraction: float) -> int:
        if not 0 < fraction < 1:
            raise UsageError(
                "scheduler.fraction",
                f"a refiner cannot take over at {fraction:g}: it is a number above 0 and below 1.",
                "0.8 is usual.",
            )
        train = self.settings.num_train_timesteps
        return round(train - fraction * train)

"""What every scheduler is: a frozen plan of a trajectory, and a value that says how far along it we are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class State:
    """A point on the way from noise to an image.

    Attributes:
        index: The evaluation that comes next: a place in ``Scheduler.timesteps``.
        sample: Latents, float32 ``[batch, channels, height, width]``.
        begin: The evaluation that the trajectory began with; above 0 after ``Scheduler.resume``.
        history: What a method remembers of earlier evaluations, newest last.
        anchor: The sample that a half-made step goes back to.
    """

    index: int
    sample: Floats
    begin: int = 0
    history: tuple[Floats, ...] = ()
    anchor: Floats | None = None


class Scheduler(Protocol):
    """One way to walk from noise to an image in a fixed number of evaluations of the model."""

    @property
    def timesteps(self) -> tuple[float, ...]:
        """What the model is told, one entry an evaluation: methods of two evaluations have 2N - 1."""
        ...

    def start(self, noise: Floats) -> State:
        """Begin with unit normal ``noise`` of the latents' shape."""
        ...

    def resume(self, sample: Floats, index: int) -> State:
        """Go on from a sample that already carries the noise of evaluation ``index``.

        Args:
            sample: For image to image ``noised(clean, noise, index)``; for a refiner the base's last sample.
            index: From ``first_index`` or ``refiner_index``.

        Raises:
            ValueError: The index is no beginning of a step.
        """
        ...

    def first_index(self, strength: float) -> int:
        """Return where image to image begins; ``len(timesteps)`` where too little strength leaves no step.

        Args:
            strength: Share of the steps to make, 0 to 1.

        Raises:
            UsageError: Strength is out of range, or the method cannot begin in the middle.
        """
        ...

    def split_index(self, fraction: float) -> int:
        """Return how many evaluations a base model makes before a refiner takes over.

        Args:
            fraction: Share of the training timesteps that the base covers, above 0 and below 1.

        Raises:
            UsageError: The fraction is out of range.
        """
        ...

    def refiner_index(self, fraction: float) -> int:
        """Return the evaluation that a refiner begins with, where the base covered ``fraction``.

        Raises:
            UsageError: The fraction is out of range.
        """
        ...

    def noised(self, clean: Floats, noise: Floats, index: int) -> Floats:
        """Bring clean latents to the noise level of an evaluation.

        Args:
            clean: Latents without noise.
            noise: Unit normal noise of their shape.
            index: Which evaluation; at ``len(timesteps)``, the end, the latents stay clean.
        """
        ...

    def model_input(self, state: State) -> Floats:
        """Return what the model is to see, of ``state.sample``'s shape."""
        ...

    def denoised(self, state: State, output: Floats) -> Floats:
        """Return the image that the model's ``output`` at ``state`` points to: latents without noise."""
        ...

    def wants_noise(self, state: State) -> bool:
        """Say whether ``advance`` needs fresh unit normal noise at this point."""
        ...

    def advance(self, state: State, output: Floats, noise: Floats | None) -> State:
        """Take the model's ``output`` at ``state`` and go one evaluation further.

        Args:
            state: Where the trajectory stands.
            output: The model's output after guidance, of ``state.sample``'s shape.
            noise: Unit normal noise of that shape where ``wants_noise`` says so, else None.
        """
        ...

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
        index: UNet evaluations made so far; also the place in ``Scheduler.timesteps``.
        sample: Latents, float32 ``[batch, 4, height, width]``.
        history: What a multi-step method remembers of earlier evaluations, newest last.
        anchor: The sample that a half-made step of PNDM goes back to.
    """

    index: int
    sample: Floats
    history: tuple[Floats, ...] = ()
    anchor: Floats | None = None


class Scheduler(Protocol):
    """One way to walk from noise to an image in a fixed number of UNet evaluations."""

    @property
    def timesteps(self) -> tuple[float, ...]:
        """What the UNet is told at each evaluation."""
        ...

    def start(self, noise: Floats) -> State:
        """Begin with unit normal ``noise`` of the latents' shape."""
        ...

    def model_input(self, state: State) -> Floats:
        """Return what the UNet is to see, of ``state.sample``'s shape."""
        ...

    def wants_noise(self, state: State) -> bool:
        """Say whether ``advance`` needs fresh unit normal noise at this point."""
        ...

    def advance(self, state: State, output: Floats, noise: Floats | None) -> State:
        """Take the UNet's ``output`` at ``state`` and go one evaluation further.

        Args:
            state: Where the trajectory stands.
            output: The UNet's output after guidance, of ``state.sample``'s shape.
            noise: Unit normal noise of that shape where ``wants_noise`` says so, else None.
        """
        ...

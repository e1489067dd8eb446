"""Latent noise generated on the host, so that a seed gives the same noise on every device."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sdsetup.imaging.schedulers import Floats


@dataclass(frozen=True, kw_only=True)
class LatentNoise:
    """Standard normal noise for a batch, with one random stream per image.

    Image ``i`` of a batch with seed ``s`` draws from numpy's PCG64 seeded with ``s + i``, in float32, its
    starting latents first and the noise of single steps after them. So it is the image that seed
    ``s + i`` gives alone.

    Attributes:
        streams: One generator for each image.
    """

    streams: tuple[np.random.Generator, ...]

    @classmethod
    def of(cls, seed: int, images: int) -> LatentNoise:
        """Create the random streams of a batch."""
        return cls(streams=tuple(np.random.Generator(np.random.PCG64(seed + i)) for i in range(images)))

    def draw(self, shape: tuple[int, ...]) -> Floats:
        """Return new noise, float32 ``[images, *shape]``."""
        return np.stack([stream.standard_normal(shape, dtype=np.float32) for stream in self.streams])

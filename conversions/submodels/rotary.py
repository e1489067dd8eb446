"""Rotary positions with several axes, for denoisers whose positions are inputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conversions.graph_kind import Config


def rotary_angles(positions: NDArray[np.int64], dims: Sequence[int], theta: float) -> NDArray[np.float64]:
    """Return the angles that pairs of a head's numbers are turned by, ``[tokens, sum(dims) / 2]``.

    Args:
        positions: ``[tokens, axes]``.
        dims: How many of a head's numbers each axis turns.
        theta: Base of the frequencies.

    Source: Su et al. 2021, arXiv:2104.09864, with an axis a part as in diffusers' ``RopeEmbedder`` and
    ``get_1d_rotary_pos_embed``, in double precision as there.
    """
    parts = [
        np.outer(positions[:, axis], 1.0 / theta ** (np.arange(0, size, 2, dtype=np.float64) / size))
        for axis, size in enumerate(dims)
    ]
    return np.concatenate(parts, axis=1)


def example_timestep(config: Config, shape: tuple[int, ...], random: Any) -> Any:
    """Make times between 0 and 1, for denoisers of flow matching."""
    del config
    return random.random(shape).astype(np.float32)

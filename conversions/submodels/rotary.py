"""Rotary positions with several axes, for denoisers whose positions are inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from math import isqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conversions.graph_kind import Config, TensorSpec

_TABLES = (("image", "cos"), ("image", "sin"), ("text", "cos"), ("text", "sin"))


def table_inputs(half: int) -> tuple[TensorSpec, ...]:
    """Return the inputs for the positions of an image and of a text.

    Args:
        half: Pairs of a head's numbers, each of which has its own angle.
    """
    lengths = {"image": "tokens", "text": "sequence"}
    # float32 whatever the precision: a position is more exact than float16.
    return tuple(
        TensorSpec(name=f"{part}_rotary_{which}", dtype="float32", shape=(lengths[part], half))
        for part, which in _TABLES
    )


def table_examples(make: Callable[..., Any]) -> dict[str, Callable[..., Any]]:
    """Return makers of realistic numbers for :func:`table_inputs`, by input.

    Args:
        make: Called with (part, which, config, shape, generator): the part is ``"image"`` or ``"text"``, and
            which is 0 for cosines and 1 for sines.
    """
    return {
        f"{part}_rotary_{which}": partial(make, part, ("cos", "sin").index(which)) for part, which in _TABLES
    }


def near_square(tokens: int) -> tuple[int, int]:
    """Return the two sides of a grid of so many tokens, about as wide as high, the shorter first."""
    short = next(side for side in range(isqrt(tokens), 0, -1) if tokens % side == 0)
    return short, tokens // short


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

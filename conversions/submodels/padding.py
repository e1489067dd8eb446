"""Texts of unequal length: what the kinds share that are told which tokens are padding."""

from __future__ import annotations

from typing import Any

import numpy as np

from conversions.graph_kind import Config


def example_mask(config: Config, shape: tuple[int, ...], random: Any) -> Any:
    """Mask the end of each text, of another length in each row."""
    del config
    mask = np.ones(shape, dtype=np.int32)
    for row, end in enumerate(random.integers(shape[1] // 3, shape[1], shape[0])):
        mask[row, end:] = 0
    return mask

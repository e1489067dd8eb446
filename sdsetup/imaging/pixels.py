"""Pixels from what a decoder gives."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sdsetup.imaging.schedulers import Floats


def pixels_of(sample: Floats) -> NDArray[np.uint8]:
    """Turn a decoder's ``[images, 3, height, width]``, -1 to 1, into uint8 ``[images, height, width, 3]``."""
    values = sample / np.float32(2)
    values += np.float32(0.5)
    np.clip(values, 0, 1, out=values)
    values *= np.float32(255)
    np.rint(values, out=values)
    pixels: NDArray[np.uint8] = values.astype(np.uint8).transpose(0, 2, 3, 1)
    return pixels

"""Detect blank images: black, or of one colour."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# An 8-bit image with a lower standard deviation is of one colour.
FLAT_BELOW = 2.0
# An image with a lower mean looks black.
BLACK_BELOW = 4.0


def find_blank(pixels: NDArray[np.uint8]) -> tuple[str, ...]:
    """Return why an image is blank; empty if it is not.

    Args:
        pixels: uint8 ``[height, width, 3]``.
    """
    values = pixels.astype(np.float32)
    mean, deviation = float(values.mean()), float(values.std())
    if mean < BLACK_BELOW and deviation < BLACK_BELOW:
        return (f"the image is black (mean {mean:.1f} of 255)",)
    if deviation < FLAT_BELOW:
        return (f"the image is one colour all over (values deviate by {deviation:.1f} of 255)",)
    return ()

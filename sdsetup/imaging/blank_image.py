"""Does an image show anything at all, whatever it was to show?"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# An 8-bit image whose values deviate less than this from their mean shows nothing.
FLAT_BELOW = 2.0
# An image that is darker than this on average is black to the eye.
BLACK_BELOW = 4.0


def find_blank(pixels: NDArray[np.uint8]) -> tuple[str, ...]:
    """Say why an image shows nothing; nothing where it shows something.

    Args:
        pixels: uint8 ``[height, width, 3]``.
    """
    mean, deviation = float(pixels.mean()), float(pixels.std())
    if mean < BLACK_BELOW and deviation < BLACK_BELOW:
        return (f"the image is black (mean {mean:.1f} of 255)",)
    if deviation < FLAT_BELOW:
        return (f"the image is one colour all over (values deviate by {deviation:.1f} of 255)",)
    return ()

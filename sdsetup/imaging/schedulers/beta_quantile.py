"""The quantiles of a symmetric beta distribution, which "beta" sigmas are spaced by."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

# Terms of the series, and halvings of the interval: both reach the last bits of a float64.
_TERMS = 60
_HALVINGS = 60


def beta_quantile(probabilities: NDArray[np.float64], shape: float) -> NDArray[np.float64]:
    """Return where the distribution Beta(shape, shape) has the given probabilities below it.

    Below one half the cumulated distribution is a power series in x that gains a bit a term; it is
    inverted by bisection. Above one half it is mirrored.

    Args:
        probabilities: Each from 0 to 1.
        shape: Both of the distribution's parameters, above 0.

    Returns:
        Values from 0 to 1, of the same shape.

    Source: Abramowitz and Stegun 1964, 6.6.8: B_x(a, b) = x^a F(a, 1 - b; a + 1; x) / a.
    """
    factor = 1.0
    series = []
    for n in range(_TERMS):
        series.append(factor / (shape + n))
        factor *= (n + 1 - shape) / (n + 1)
    scale = math.gamma(2 * shape) / math.gamma(shape) ** 2
    lower = np.minimum(probabilities, 1 - probabilities)
    low, high = np.zeros_like(lower), np.full_like(lower, 0.5)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        below = scale * middle**shape * np.polynomial.polynomial.polyval(middle, series) < lower
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    quantile = np.where(lower > 0, (low + high) / 2, 0.0)
    mirrored: NDArray[np.float64] = np.where(probabilities > 0.5, 1 - quantile, quantile)
    return mirrored

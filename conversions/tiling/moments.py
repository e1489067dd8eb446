"""Mean and variance of an image, gathered tile by tile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Moments:
    """Statistics of some pixels.

    Attributes:
        count: How many pixels.
        mean: Of each image and channel, float64 ``[batch, channels]``.
        squares: Sums of squared differences from the mean, likewise.
    """

    count: int
    mean: Array
    squares: Array

    def joined(self, other: Moments) -> Moments:
        """Return the statistics of these and other pixels together.

        Source: Chan, Golub, LeVeque, "Updating Formulae and a Pairwise Algorithm for Computing Sample
        Variances", 1979.
        """
        count = self.count + other.count
        # What is not finite stays so, and is seen in the image.
        with np.errstate(invalid="ignore", over="ignore"):
            apart = other.mean - self.mean
            return Moments(
                count=count,
                mean=self.mean + apart * (other.count / count),
                squares=self.squares + other.squares + apart**2 * (self.count * other.count / count),
            )

    def normalizing(self, groups: int, epsilon: float) -> tuple[Array, Array]:
        """Return the factor and the summand that normalize groups of channels.

        Args:
            groups: How many groups.
            epsilon: Added to their variance.

        Returns:
            Both float32 ``[batch, channels, 1, 1]``.
        """
        batch, channels = self.mean.shape
        each = channels // groups
        means = self.mean.reshape(batch, groups, each)
        with np.errstate(invalid="ignore", over="ignore"):
            mean = means.mean(axis=2, keepdims=True)
            squares = self.squares.reshape(batch, groups, each) + self.count * (means - mean) ** 2
            variance = squares.sum(axis=2, keepdims=True) / (self.count * each)
            factor = 1 / np.sqrt(variance + epsilon)
            summand = -mean * factor

        def of_each_channel(numbers: Array) -> Array:
            return np.repeat(numbers[..., 0], each, axis=1)[..., None, None].astype(np.float32)

        return of_each_channel(factor), of_each_channel(summand)

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

    def normalizing(self, groups: int, epsilon: float, weight: Array, bias: Array) -> tuple[Array, Array]:
        """Return the factor and the summand of a group norm.

        Args:
            groups: How many groups.
            epsilon: Added to their variance.
            weight: The norm's, of each channel.
            bias: Likewise.

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
            factor = np.repeat((1 / np.sqrt(variance + epsilon))[..., 0], each, axis=1) * weight
            summand = bias - np.repeat(mean[..., 0], each, axis=1) * factor
            shape = (batch, channels, 1, 1)
            return factor.reshape(shape).astype(np.float32), summand.reshape(shape).astype(np.float32)

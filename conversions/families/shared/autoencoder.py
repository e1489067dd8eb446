"""Latents from what ``AutoencoderKL`` gives."""

from __future__ import annotations

import numpy as np

from conversions.recipe import Floats


def sampled(parameters: Floats, noise: Floats) -> Floats:
    """Take a sample of the encoder's distribution.

    Args:
        parameters: Mean and log variance, ``[images, 2 * channels, height, width]``.
        noise: Unit normal, ``[images, channels, height, width]``.

    Source: DiagonalGaussianDistribution of diffusers.
    """
    mean, logvar = np.split(parameters, 2, axis=1)
    deviation = np.exp(np.float32(0.5) * np.clip(logvar, -30, 20))
    latents: Floats = mean + deviation * noise
    return latents

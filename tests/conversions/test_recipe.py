"""The space that a denoiser works in."""

from __future__ import annotations

import numpy as np

from conversions.recipe import Conditioning, ImageSize, InitialImage, LatentSpace, NoiseLevels


def test_latents_are_smaller_than_the_image_by_the_same_factor_both_ways() -> None:
    space = LatentSpace(channels=4, downscale=8, scaling=0.5)
    shape = space.shape(ImageSize(width=640, height=512, images=3))
    assert shape == (4, 64, 80)
    assert all(type(side) is int for side in shape)
    assert space.shape(ImageSize(width=647, height=519)) == (4, 64, 80)


def test_the_denoiser_s_scale_is_shifted_first_and_then_scaled() -> None:
    space = LatentSpace(channels=4, downscale=8, scaling=0.5, shift=3.0)
    encoded = np.array([1.0, 5.0], np.float32)
    latents = space.encode(encoded)
    assert latents.tolist() == [-1.0, 1.0]
    assert space.decode(latents).tolist() == encoded.tolist()
    assert latents.dtype == space.decode(latents).dtype == np.float32
    plain = LatentSpace(channels=4, downscale=8, scaling=0.5)
    assert plain.encode(encoded).tolist() == [0.5, 2.5]
    assert plain.decode(encoded).tolist() == [2.0, 10.0]


def test_what_is_usual() -> None:
    size = ImageSize(width=8, height=16)
    assert size.images == 1
    assert Conditioning(size=size, runs=()).branches == 1
    levels = NoiseLevels(image_tokens=3)
    assert (levels.mu, levels.sigmas) == (None, None)
    initial = InitialImage(latents=None)
    assert initial.mask is None
    assert initial.masked_latents is None

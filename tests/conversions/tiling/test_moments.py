"""Statistics of an image, gathered from its parts."""

from __future__ import annotations

import numpy as np
import pytest

from conversions.tiling.moments import Moments


def moments(image: np.ndarray) -> Moments:  # type: ignore[type-arg]
    mean = image.mean(axis=(2, 3))
    squares = ((image - mean[..., None, None]) ** 2).sum(axis=(2, 3))
    return Moments(count=image.shape[2] * image.shape[3], mean=mean, squares=squares)


@pytest.mark.parametrize("groups", [1, 3, 6])
def test_parts_of_different_sizes_normalize_as_the_whole(groups: int) -> None:
    image = 40 + np.random.default_rng(0).standard_normal((2, 6, 10, 7)) * np.arange(1, 7)[:, None, None]
    image[:, :, :3] *= 5
    joined = moments(image[:, :, :3]).joined(moments(image[:, :, 3:9])).joined(moments(image[:, :, 9:]))
    weight, bias = np.linspace(0.5, 2, 6), np.linspace(-3, 3, 6)
    factor, summand = joined.normalizing(groups, 1e-6, weight, bias)
    grouped = image.reshape(2, groups, -1)
    expected = (grouped - grouped.mean(axis=2, keepdims=True)) / np.sqrt(
        grouped.var(axis=2, keepdims=True) + 1e-6
    )
    assert factor.dtype == np.float32 and factor.shape == (2, 6, 1, 1)
    expected = expected.reshape(image.shape) * weight[:, None, None] + bias[:, None, None]
    np.testing.assert_allclose(image * factor + summand, expected, atol=1e-4)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("wrong", [np.inf, np.nan])
def test_what_is_not_finite_stays_so_without_a_warning(wrong: float) -> None:
    right = moments(np.ones((1, 4, 3, 3)))
    overflown = Moments(count=9, mean=np.full((1, 4), wrong), squares=np.full((1, 4), wrong))
    factor, summand = overflown.joined(right).joined(overflown).normalizing(2, 1e-6, np.ones(4), np.zeros(4))
    assert not np.isfinite(factor + summand).any()

"""Products, rounding and ranges are numpy's, for few numbers and for many."""

from __future__ import annotations

import numpy as np
import pytest

from conversions.weights.kernels import multiply, ranges, to_float16, to_float32

RANDOM = np.random.default_rng(5)
SIZES = (0, 1, 4095, 4096, 10_000)


@pytest.mark.parametrize(("rows", "inner", "columns"), [(3, 5, 7), (0, 5, 7), (3, 0, 7), (3, 5, 0)])
def test_a_product_is_numpys(rows: int, inner: int, columns: int) -> None:
    left = RANDOM.standard_normal((rows, inner)).astype(np.float32)
    right = RANDOM.standard_normal((inner, columns)).astype(np.float32)
    product = multiply(left, right)
    assert product.dtype == np.float32
    assert product.shape == (rows, columns)
    np.testing.assert_allclose(product, left @ right, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size", SIZES)
def test_halves_are_widened(size: int) -> None:
    halves = RANDOM.standard_normal((size, 2)).astype(np.float16)
    found = to_float32(halves)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, halves.astype(np.float32))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_other_types_are_cast_and_float32_is_not_copied(dtype: type) -> None:
    numbers = RANDOM.standard_normal(5000).astype(dtype)
    found = to_float32(numbers)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, numbers.astype(np.float32))
    assert (found is numbers) == (dtype is np.float32)


@pytest.mark.parametrize("size", SIZES)
def test_float32_is_rounded_to_the_nearest_half_and_what_is_too_large_is_infinite(size: int) -> None:
    numbers = (RANDOM.standard_normal((size, 3)) * 1e4).astype(np.float32)
    special = np.array([2049.0, 2051.0, 1e9, -1e9, np.nan], np.float32)
    numbers.reshape(-1)[: len(special)] = special[: numbers.size]
    found = to_float16(numbers)
    assert found.dtype == np.float16
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(found, numbers.astype(np.float16))


@pytest.mark.parametrize("rows", [(4, 3, 32), (64, 5, 32)])
@pytest.mark.parametrize("spoilt", [np.nan, np.inf, -np.inf, 0.0])
def test_ranges_show_what_is_not_finite(rows: tuple[int, ...], spoilt: float) -> None:
    numbers = RANDOM.standard_normal(rows).astype(np.float32)
    numbers[2, 2, 9] = spoilt
    least, largest = ranges(numbers)
    np.testing.assert_array_equal(least, numbers.min(-1))
    np.testing.assert_array_equal(largest, numbers.max(-1))

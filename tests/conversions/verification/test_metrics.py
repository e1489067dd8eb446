"""How close a tensor is to its reference: numbers that can be counted by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from conversions.verification.metrics import Closeness, compare


def close(found: Any, reference: Any, dtype: Any = np.float32) -> Closeness:
    return compare(np.asarray(found, dtype), np.asarray(reference, dtype))


def test_the_range_of_the_reference_is_the_peak() -> None:
    found = close([[1.0, 2.0], [3.0, 7.0]], [[1.0, 2.0], [3.0, 5.0]])  # mean square 1, range 4
    assert found.psnr_db == pytest.approx(10 * math.log10(16))
    assert found.max_abs_error == 2.0
    assert found.cosine == pytest.approx(49 / math.sqrt(63 * 39))
    assert found.finite is True
    # A constant has no range: its size is the peak; of zeros it is one.
    assert close([3.0, -5.0], [-4.0, -4.0]).psnr_db == pytest.approx(10 * math.log10(16 / 25))
    assert close([0.5, -0.5], [0.0, 0.0]).psnr_db == pytest.approx(10 * math.log10(4))


def test_an_error_below_counts_as_one_above() -> None:
    assert close([-3.0, 1.0], [0.0, 0.0]).max_abs_error == 3.0


def test_equal_tensors_are_infinitely_close() -> None:
    same = close([1.0, -2.0], [1.0, -2.0])
    assert (same.psnr_db, same.max_abs_error, same.finite) == (math.inf, 0.0, True)
    assert same.cosine == pytest.approx(1.0)
    nothing = close([0.0, 0.0], [0.0, 0.0])
    assert nothing == Closeness(psnr_db=math.inf, max_abs_error=0.0, cosine=1.0, finite=True)
    assert close([0.0, 0.0], [1.0, 2.0]).cosine == 0.0


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_infinitely_far(value: float) -> None:
    expected = Closeness(psnr_db=-math.inf, max_abs_error=math.inf, cosine=0.0, finite=False)
    assert close([1.0, value], [1.0, 2.0]) == expected


def test_float16_is_compared_in_float64() -> None:
    found = close([60000.0, 0.0], [0.0, 60000.0], np.float16)
    assert found.psnr_db == pytest.approx(0.0)
    assert found.max_abs_error == 60000.0
    assert found.cosine == 0.0


def test_booleans_are_equal_or_not() -> None:
    same, other = close([True, False], [True, False], bool), close([True, True], [True, False], bool)
    assert same == Closeness(psnr_db=math.inf, max_abs_error=0.0, cosine=1.0, finite=True)
    assert other == Closeness(psnr_db=-math.inf, max_abs_error=1.0, cosine=0.0, finite=True)


def test_shapes_that_differ_are_refused() -> None:
    with pytest.raises(ValueError, match=r"shapes differ: \(2,\) and \(2, 1\)"):
        close([1.0, 2.0], [[1.0], [2.0]])

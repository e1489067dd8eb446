"""ONNX Runtime's kernels give numpy's numbers."""

import numpy as np
import pytest

from conversions.weights import kernels


@pytest.mark.parametrize("spoilt", [np.nan, np.inf, -np.inf, 0.0])
def test_ranges_are_numpy_s_and_show_what_is_not_finite(spoilt):
    rows = np.random.default_rng(3).standard_normal((64, 5, 32), np.float32)
    rows[7, 2, 9] = spoilt
    least, largest = kernels.ranges(rows)
    np.testing.assert_array_equal(least, rows.min(-1))
    np.testing.assert_array_equal(largest, rows.max(-1))

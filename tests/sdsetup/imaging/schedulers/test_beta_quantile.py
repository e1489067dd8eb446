import numpy as np
import pytest

from sdsetup.imaging.schedulers.beta_quantile import beta_quantile


@pytest.mark.parametrize("shape", [0.6, 0.3, 1.0, 2.5])
def test_quantiles_are_those_of_scipy(shape):
    beta = pytest.importorskip("scipy.stats").beta
    for count in (1, 2, 7, 20, 1000):
        probabilities = 1 - np.linspace(0, 1, count)
        quantiles = beta_quantile(probabilities, shape)
        np.testing.assert_allclose(quantiles, beta.ppf(probabilities, shape, shape), rtol=0, atol=1e-12)

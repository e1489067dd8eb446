"""The clean latents that a model's output points to, on the way."""

from __future__ import annotations

import numpy as np
import pytest

from sdsetup.imaging.schedulers import FLOW_NAMES, NAMES, make_scheduler
from sdsetup.imaging.schedulers.protocol import State
from tests.sdsetup.imaging.schedulers.trajectories import FLOW, SD14

SHAPE = (2, 4, 8, 8)


@pytest.mark.parametrize("name", [*NAMES, *FLOW_NAMES])
def test_a_model_that_is_right_points_to_the_clean_latents(name: str) -> None:
    random = np.random.default_rng(5)
    clean, noise = (random.standard_normal(SHAPE, np.float32) for _ in range(2))
    scheduler = make_scheduler(name, FLOW if name in FLOW_NAMES else SD14, 10)
    output = noise - clean if name in FLOW_NAMES else noise
    for index in (0, 2):
        state = State(index=index, sample=scheduler.noised(clean, noise, index))
        np.testing.assert_allclose(scheduler.denoised(state, output), clean, atol=2e-4)

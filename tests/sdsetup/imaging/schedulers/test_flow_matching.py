"""Whole trajectories of flow matching against diffusers' own classes, driven by the same made-up model."""

import numpy as np
import pytest

from tests.sdsetup.imaging.schedulers.trajectories import FLOW, compare

pytestmark = pytest.mark.torch


@pytest.mark.parametrize("strength", [None, 0.6])
@pytest.mark.parametrize("steps", [1, 4, 28])
@pytest.mark.parametrize(
    "change",
    [
        {},
        {"shift": 3.0},
        {"shift": 6.0, "num_train_timesteps": 600},
        {"use_karras_sigmas": True},
        {"use_exponential_sigmas": True, "shift": 3.0},
        {"use_beta_sigmas": True, "shift": 3.0},
        {"invert_sigmas": True},
        {"stochastic_sampling": True, "shift": 3.0},
    ],
    ids=lambda change: "-".join(change) or "plain",
)
def test_flow_matching_is_that_of_diffusers(change, steps, strength):
    if change.get("invert_sigmas") and steps == 1:
        pytest.skip("a schedule of no noise")
    compare("flow_match_euler", FLOW | change, steps, strength=strength)


@pytest.mark.parametrize("strength", [None, 0.6])
@pytest.mark.parametrize("steps", [1, 4, 25])
@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_flow_matching_with_heun_is_that_of_diffusers(shift, steps, strength):
    compare("flow_match_heun", FLOW | {"shift": shift}, steps, strength=strength)


@pytest.mark.parametrize("kind", ["exponential", "linear"])
@pytest.mark.parametrize("terminal", [None, 0.02])
@pytest.mark.parametrize("mu", [0.5, 1.15])
def test_dynamic_shift_is_that_of_diffusers(mu, terminal, kind):
    steps = 20
    change = {"use_dynamic_shifting": True, "shift_terminal": terminal, "time_shift_type": kind, "shift": 3.0}
    compare("flow_match_euler", FLOW | change, steps, mu=mu)
    compare("flow_match_euler", FLOW | change, steps, mu=mu, sigmas=np.linspace(1, 1 / steps, steps).tolist())

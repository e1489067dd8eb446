"""Each refusal has its code: what a configuration, an option or a number of steps cannot be."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from sdsetup.errors import SetupError, UsageError
from sdsetup.imaging.schedulers import FLOW_NAMES, NAMES, make_scheduler
from tests.sdsetup.imaging.schedulers.trajectories import FLOW, SD14

FLOWING = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
LAST = {"lower_order_final": False}
TO_THE_LEAST = {"final_sigmas_type": "sigma_min"}


@pytest.mark.parametrize(
    ("name", "change", "code"),
    [
        ("dpmpp_2m", {"algorithm_type": "dpmsolver", "final_sigmas_type": "zero"}, "scheduler.unsupported"),
        ("unipc", {"predict_x0": False}, "scheduler.unsupported"),
        ("unipc", LAST, "scheduler.unsupported"),
        (
            "unipc",
            LAST | TO_THE_LEAST | {"use_beta_sigmas": True},
            "scheduler.unsupported",
        ),
        (
            "unipc",
            LAST | TO_THE_LEAST | {"use_flow_sigmas": True},
            "scheduler.unsupported",
        ),
        ("unipc", {"shift_terminal": 0.1}, "scheduler.unsupported"),
        (
            "unipc",
            FLOWING | {"predict_x0": False, "final_sigmas_type": "sigma_min"},
            "scheduler.unsupported",
        ),
        ("ddim", {"rescale_betas_zero_snr": True}, "scheduler.unsupported"),
        ("tcd", {"rescale_betas_zero_snr": True}, "scheduler.unsupported"),
        ("euler", {"use_karras_sigmas": True, "sigma_min": 20.0}, "scheduler.config"),
        ("ddim", {"beta_start": 0.999, "beta_end": 0.999, "beta_schedule": "linear"}, "scheduler.config"),
        ("flow_match_euler", {"base_image_seq_len": 4096, "max_image_seq_len": 4096}, "scheduler.config"),
    ],
)
def test_a_configuration_is_refused(name: str, change: dict[str, Any], code: str) -> None:
    with pytest.raises(SetupError) as caught:
        make_scheduler(name, (FLOW if name in FLOW_NAMES else SD14) | change, 8)
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("name", "change", "options", "code"),
    [
        ("pndm", {"skip_prk_steps": False}, {"steps": 3}, "scheduler.too_few_steps"),
        ("lcm", {}, {"steps": 51}, "scheduler.steps"),
        ("lcm", {"original_inference_steps": 1001}, {}, "scheduler.original_inference_steps"),
        ("lcm", {}, {"original_inference_steps": 1001}, "scheduler.original_inference_steps"),
        ("tcd", {}, {"strength": 0.0}, "scheduler.strength"),
        ("tcd", {}, {"strength": 1.1}, "scheduler.strength"),
        ("ddim", {"timestep_spacing": "leading", "steps_offset": 600}, {"steps": 2}, "scheduler.steps"),
        ("ddim", {}, {"steps": 1000}, "scheduler.steps"),
        ("ddim", {}, {"steps": 0}, "scheduler.steps"),
        ("ddim", {}, {"eta": 1.5}, "scheduler.eta"),
        ("euler", {}, {"eta": 0.5}, "scheduler.eta"),
        ("euler", {}, {"sigmas": [1.0] * 8}, "scheduler.option"),
        ("unipc", FLOWING | {"use_dynamic_shifting": True}, {}, "scheduler.mu"),
        ("flow_match_euler", {"use_dynamic_shifting": True}, {}, "scheduler.mu"),
        ("flow_match_euler", {}, {"sigmas": [1.0, 0.5]}, "scheduler.sigmas"),
        ("dpmpp_2m", {"timestep_spacing": "trailing"}, {"steps": 999}, None),
    ],
)
def test_options_are_refused(
    name: str, change: dict[str, Any], options: dict[str, Any], code: str | None
) -> None:
    config = (FLOW if name in FLOW_NAMES else SD14) | change
    if code is None:
        assert make_scheduler(name, config, **{"steps": 8, **options}).timesteps
        return
    with pytest.raises(UsageError) as caught:
        make_scheduler(name, config, **{"steps": 8, **options})
    assert caught.value.code == code


def test_as_many_steps_as_can_be_are_taken() -> None:
    assert len(make_scheduler("lcm", SD14, 50).timesteps) == 50
    assert len(make_scheduler("pndm", SD14 | {"skip_prk_steps": False}, 4).timesteps) > 4
    assert len(make_scheduler("ddim", SD14 | {"steps_offset": 0}, 1000).timesteps) == 1000


@pytest.mark.parametrize("strength", [-0.1, 1.1, float("nan")])
def test_a_strength_out_of_range_is_refused(strength: float) -> None:
    with pytest.raises(UsageError) as caught:
        make_scheduler("euler", SD14, 8).first_index(strength)
    assert caught.value.code == "scheduler.strength"


@pytest.mark.parametrize("fraction", [0.0, 1.0, 1.5, -0.5, float("nan")])
def test_a_fraction_out_of_range_is_refused(fraction: float) -> None:
    scheduler = make_scheduler("euler", SD14, 8)
    for ask in (scheduler.split_index, scheduler.refiner_index):
        with pytest.raises(UsageError) as caught:
            ask(fraction)
        assert caught.value.code == "scheduler.fraction"
    for fraction in (1e-9, 0.999_999):
        assert 0 <= scheduler.split_index(fraction) <= 8


def test_runge_kutta_steps_are_not_begun_in_the_middle() -> None:
    scheduler = make_scheduler("pndm", SD14 | {"skip_prk_steps": False}, 10)
    assert scheduler.first_index(1.0) == 0
    with pytest.raises(UsageError) as caught:
        scheduler.first_index(0.5)
    assert caught.value.code == "scheduler.unsupported"


@pytest.mark.parametrize("name", [*NAMES, *FLOW_NAMES])
def test_where_a_trajectory_began_is_kept_to_its_end(name: str) -> None:
    scheduler = make_scheduler(name, FLOW if name in FLOW_NAMES else SD14, 6)
    random = np.random.default_rng(1)
    index = scheduler.first_index(0.7)
    sample = random.standard_normal((1, 4, 4, 4)).astype(np.float32)
    state = scheduler.resume(sample, index)
    for place in range(index, len(scheduler.timesteps)):
        assert (state.begin, state.index) == (index, place)
        noise = sample[::-1] if scheduler.wants_noise(state) else None
        state = scheduler.advance(state, sample * 0.1, noise)
    assert (state.begin, state.index) == (index, len(scheduler.timesteps))


# Evaluations of four steps that want noise: all but the one that ends without any.
WANT_NOISE = {
    "euler_ancestral": [True, True, True, False],
    "dpmpp_2m_sde": [True, True, True, False],
    "dpmpp_sde": [True] * 6 + [False],
    "kdpm2_ancestral": [False, True] * 3 + [False],
    "ddpm": [True, True, True, False],
    "lcm": [True, True, True, False],
}


@pytest.mark.parametrize("name", [*NAMES, *FLOW_NAMES])
def test_noise_is_wanted_by_the_stochastic_ones_alone(name: str) -> None:
    def wanted(**options: Any) -> list[bool]:
        config = FLOW if name in FLOW_NAMES else SD14 | {"steps_offset": 0}
        scheduler = make_scheduler(name, config, 4, **options)
        state = scheduler.start(np.zeros((1, 4, 2, 2), np.float32))
        places = range(len(scheduler.timesteps))
        return [scheduler.wants_noise(replace(state, index=index)) for index in places]

    found = wanted()
    assert found == WANT_NOISE.get(name, [False] * len(found))
    if name in ("ddim", "tcd"):
        assert wanted(eta=0.5) == [True, True, True, name == "ddim"]

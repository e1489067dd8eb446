"""Whole trajectories against diffusers' own classes, driven by the same made-up UNet."""

import sys
import warnings

import numpy as np
import pytest

from sdsetup.errors import SetupError, UsageError
from sdsetup.imaging.schedulers import NAMES, make_scheduler, name_of

pytestmark = pytest.mark.torch

SD14 = {
    "_class_name": "PNDMScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "trained_betas": None,
    "clip_sample": False,
}
CLASSES = {
    "ddim": "DDIMScheduler",
    "pndm": "PNDMScheduler",
    "euler": "EulerDiscreteScheduler",
    "euler_ancestral": "EulerAncestralDiscreteScheduler",
    "dpmpp_2m": "DPMSolverMultistepScheduler",
    "lms": "LMSDiscreteScheduler",
}
SHAPE = (2, 4, 6, 5)


def field(sample, timestep, weights):
    """Be a smooth stand-in for a UNet, tame enough that a rounding error does not grow by itself."""
    turned = np.einsum("oc,bchw->bohw", weights, sample)
    return np.tanh(turned + np.float32(timestep) / np.float32(500) - 1).astype(np.float32)


def theirs(name, config, steps, eta, noise, weights, draws):
    import diffusers
    import torch

    cls = getattr(diffusers, CLASSES[name])
    module = sys.modules[cls.__module__]
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore")
        scheduler = cls.from_config(config)
        scheduler.set_timesteps(steps)
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(0)
        if hasattr(module, "randn_tensor"):
            patch.setattr(module, "randn_tensor", lambda *_, **__: torch.from_numpy(next(draws)))
        extra = {"eta": eta} if name == "ddim" else {}
        sample = torch.from_numpy(noise) * scheduler.init_noise_sigma
        points, start = [], float(sample.abs().max())
        for timestep in scheduler.timesteps:
            seen = scheduler.scale_model_input(sample, timestep)
            output = torch.from_numpy(field(seen.numpy(), float(timestep), weights))
            sample = scheduler.step(output, timestep, sample, **extra).prev_sample
            points.append(sample.numpy())
        return [float(timestep) for timestep in scheduler.timesteps], points, start


def ours(name, config, steps, eta, noise, weights, draws):
    scheduler = make_scheduler(name, config, steps, eta=eta)
    state = scheduler.start(noise)
    points = []
    for timestep in scheduler.timesteps:
        output = field(scheduler.model_input(state), timestep, weights)
        fresh = next(draws) if scheduler.wants_noise(state) else None
        state = scheduler.advance(state, output, fresh)
        assert state.sample.dtype == np.float32
        points.append(state.sample)
    return list(scheduler.timesteps), points


def compare(name, config, steps, eta=0.0):
    generator = np.random.default_rng(7)
    noise = generator.standard_normal(SHAPE, dtype=np.float32)
    weights = 0.4 * generator.standard_normal((4, 4)).astype(np.float32)
    draws = [generator.standard_normal(SHAPE, dtype=np.float32) for _ in range(steps + 20)]
    expected_times, expected, start = theirs(name, config, steps, eta, noise, weights, iter(draws))
    times, points = ours(name, config, steps, eta, noise, weights, iter(draws))
    np.testing.assert_allclose(times, expected_times, rtol=1e-6, atol=1e-4)
    assert len(points) == len(expected)
    # float32 rounds relative to the largest numbers that a trajectory has gone through.
    scale = start
    for place, (point, reference) in enumerate(zip(points, expected, strict=True)):
        scale = max(scale, float(np.abs(reference).max()))
        assert float(np.abs(point - reference).max()) <= 1e-5 * scale, f"at evaluation {place}"


@pytest.mark.parametrize("steps", [4, 10, 20, 50, 77])
@pytest.mark.parametrize("name", NAMES)
def test_sd_1_4_trajectory_is_that_of_diffusers(name, steps):
    compare(name, SD14, steps)


@pytest.mark.parametrize("spacing", ["leading", "linspace", "trailing"])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("name", NAMES)
def test_every_spacing_and_prediction_is_that_of_diffusers(name, prediction, spacing):
    config = SD14 | {"timestep_spacing": spacing, "prediction_type": prediction}
    if prediction == "sample" and name in ("pndm", "euler_ancestral"):
        with pytest.raises(SetupError, match="predicts samples"):
            make_scheduler(name, config, 12)
    else:
        compare(name, config, 12)


@pytest.mark.parametrize(
    "change",
    [
        {"beta_schedule": "linear"},
        {"beta_schedule": "squaredcos_cap_v2"},
        {"trained_betas": [0.0001 * (1 + i / 50) for i in range(1000)]},
        {"set_alpha_to_one": True},
        {"num_train_timesteps": 600},
        {"steps_offset": 0},
        {"skip_prk_steps": False},
    ],
    ids=lambda change: "-".join(change),
)
@pytest.mark.parametrize("name", NAMES)
def test_every_noise_schedule_is_that_of_diffusers(name, change):
    compare(name, SD14 | change, 17)


@pytest.mark.parametrize("name", NAMES)
def test_absent_fields_take_the_defaults_of_the_wanted_class(name):
    compare(name, {"clip_sample": False}, 9)


@pytest.mark.parametrize("spacing", ["use_karras_sigmas", "use_exponential_sigmas"])
@pytest.mark.parametrize("name", ["euler", "lms", "dpmpp_2m", "euler_ancestral"])
def test_karras_and_exponential_sigmas_are_those_of_diffusers(name, spacing):
    compare(name, SD14 | {spacing: True}, 15)


@pytest.mark.parametrize("eta", [0.3, 1.0])
def test_ddim_eta_adds_the_noise_of_diffusers(eta):
    compare("ddim", SD14, 20, eta)


@pytest.mark.parametrize("clip_range", [1.0, 0.7])
def test_ddim_clips_as_diffusers_does(clip_range):
    compare("ddim", SD14 | {"clip_sample": True, "clip_sample_range": clip_range}, 20)


@pytest.mark.parametrize("name", ["ddim", "euler", "euler_ancestral", "dpmpp_2m"])
def test_zero_terminal_signal_is_that_of_diffusers(name):
    config = SD14 | {
        "rescale_betas_zero_snr": True,
        "prediction_type": "v_prediction",
        "timestep_spacing": "trailing",
    }
    compare(name, config, 12)


@pytest.mark.parametrize("final", ["zero", "sigma_min"])
@pytest.mark.parametrize("name", ["euler", "dpmpp_2m"])
def test_final_sigma_is_that_of_diffusers(name, final):
    compare(name, SD14 | {"final_sigmas_type": final}, 16)


@pytest.mark.parametrize("algorithm", ["dpmsolver++", "sde-dpmsolver++"])
@pytest.mark.parametrize("solver", ["midpoint", "heun"])
@pytest.mark.parametrize("steps", [6, 20])
def test_solver_kinds_are_those_of_diffusers(algorithm, solver, steps):
    compare("dpmpp_2m", SD14 | {"algorithm_type": algorithm, "solver_type": solver}, steps)


@pytest.mark.parametrize(
    "change",
    [
        {"solver_order": 1},
        {"euler_at_final": True, "final_sigmas_type": "sigma_min"},
        {"lower_order_final": False, "final_sigmas_type": "sigma_min"},
        {"lambda_min_clipped": -5.1, "beta_schedule": "squaredcos_cap_v2"},
    ],
    ids=lambda change: "-".join(change),
)
def test_solver_orders_are_those_of_diffusers(change):
    compare("dpmpp_2m", SD14 | change, 12)


def test_one_step_is_that_of_diffusers():
    for name in NAMES:
        compare(name, SD14, 1)


@pytest.mark.parametrize("steps", [500, 501, 998, 999])
@pytest.mark.parametrize("name", NAMES)
def test_very_many_steps_run_or_are_refused_in_words(name, steps):
    noise = np.random.default_rng(0).standard_normal(SHAPE, dtype=np.float32)
    try:
        _, points = ours(name, SD14, steps, 0.0, noise, np.zeros((4, 4), np.float32), iter([noise] * 1001))
    except SetupError as refused:
        assert "noise levels" in refused.message
    else:
        assert np.all(np.isfinite(points[-1]))


def test_scheduler_of_a_configuration_is_known_by_its_class():
    assert [name_of({"_class_name": cls}) for cls in CLASSES.values()] == list(CLASSES)
    assert name_of({"_class_name": "UniPCMultistepScheduler"}) == "pndm"


@pytest.mark.parametrize(
    ("name", "steps", "eta"),
    [
        ("heun", 20, 0),
        ("ddim", 0, 0),
        ("ddim", -3, 0),
        ("ddim", 1000, 0),
        ("lms", 1001, 0),
        ("ddim", 9, 1.5),
        ("lms", 9, 0.5),
    ],
)
def test_senseless_requests_are_usage_errors(name, steps, eta):
    with pytest.raises(UsageError) as caught:
        make_scheduler(name, SD14, steps, eta=eta)
    assert caught.value.hint


def test_unsupported_fields_are_named():
    with pytest.raises(SetupError, match="solver_order = 3"):
        make_scheduler("dpmpp_2m", SD14 | {"solver_order": 3}, 20)

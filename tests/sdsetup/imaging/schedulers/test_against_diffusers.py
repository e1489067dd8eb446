"""Whole trajectories against diffusers' own classes, driven by the same made-up model."""

import importlib
import math
import sys
import types
import warnings

import numpy as np
import pytest

from sdsetup.imaging.schedulers import FLOW_NAMES, NAMES, make_scheduler
from sdsetup.imaging.schedulers.registry import ENTRIES

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
CLASSES = {entry.name: entry.class_name for entry in ENTRIES}
BY_SIGMA = ["euler", "lms", "heun", "kdpm2", "kdpm2_ancestral", "dpmpp_sde"]
BY_UNIT_VARIANCE = ["dpmpp_2m", "dpmpp_2m_sde", "dpmpp_singlestep", "deis", "unipc"]
BY_TABLE = ["ddim", "pndm", "ddpm", "lcm", "tcd"]
SHAPE = (2, 4, 6, 5)


def field(sample, timestep, weights):
    """Be a smooth stand-in for a model, tame enough that a rounding error does not grow by itself."""
    turned = np.einsum("oc,bchw->bohw", weights, sample)
    return np.tanh(turned + np.float32(timestep) / np.float32(500) - 1).astype(np.float32)


class BrownianPath:
    """Noise for diffusers' DPMSolverSDEScheduler: one falling walk over sigma, drawn as asked for."""

    def __init__(self, draws):
        self.draws, self.begin, self.values = draws, None, {}

    def __call__(self, sigma, following):
        import torch

        sigma, following = float(sigma), float(following)
        if sigma != self.begin:
            self.begin, self.values = sigma, {sigma: np.zeros(SHAPE, np.float64)}
        reached = min(self.values)
        fresh = math.sqrt(reached - following) * next(self.draws).astype(np.float64)
        self.values[following] = self.values[reached] + fresh
        return torch.from_numpy((self.values[following] / math.sqrt(sigma - following)).astype(np.float32))


def theirs_made(name, config):
    """Make diffusers' scheduler; its Brownian noise alone needs torchsde, which is not installed."""
    import diffusers.schedulers

    if name == "dpmpp_2m_sde":
        config = config | {"algorithm_type": "sde-dpmsolver++"}
    if name == "dpmpp_sde":
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(sys.modules, "torchsde", types.ModuleType("torchsde"))
            module = importlib.import_module("diffusers.schedulers.scheduling_dpmsolver_sde")
        return module.DPMSolverSDEScheduler.from_config(config)
    return getattr(diffusers.schedulers, CLASSES[name]).from_config(config)


def theirs(name, config, steps, noise, weights, draws, *, strength, eta, mu, sigmas, origin):
    import torch

    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore")
        scheduler = theirs_made(name, config)
        module = sys.modules[type(scheduler).__module__]
        if sigmas is not None:
            scheduler.set_timesteps(sigmas=sigmas, mu=mu)
        elif mu is not None:
            scheduler.set_timesteps(steps, mu=mu)
        elif origin is not None:
            scheduler.set_timesteps(steps, original_inference_steps=origin)
        else:
            scheduler.set_timesteps(steps)
        begin = 0
        if strength is not None:
            # get_timesteps of StableDiffusionImg2ImgPipeline and of FluxImg2ImgPipeline
            if name in FLOW_NAMES:
                begin = int(max(steps - min(steps * strength, steps), 0)) * scheduler.order
            else:
                begin = max(steps - min(int(steps * strength), steps), 0) * scheduler.order
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(begin)
        if name == "deis":
            # Its factors are differences of near numbers: float32 is off by up to 5e-5 there, ours by 5e-6.
            scheduler.sigmas = scheduler.sigmas.double()
        if hasattr(module, "randn_tensor"):
            patch.setattr(module, "randn_tensor", lambda *_, **__: torch.from_numpy(next(draws)))
        if name == "dpmpp_sde":
            patch.setattr(module, "BrownianTreeNoiseSampler", lambda *_, **__: BrownianPath(draws))
        extra = {"eta": eta} if name in ("ddim", "tcd") else {}
        timesteps = scheduler.timesteps[begin:]
        if strength is None:
            sample = torch.from_numpy(noise) * getattr(scheduler, "init_noise_sigma", 1.0)
        else:
            clean = torch.from_numpy(np.roll(noise, 1, axis=2))
            sample = blended(scheduler, clean, torch.from_numpy(noise), timesteps)
        points = [sample.numpy()]
        for timestep in timesteps:
            seen = sample
            if hasattr(scheduler, "scale_model_input"):
                seen = scheduler.scale_model_input(sample, timestep)
            output = torch.from_numpy(field(seen.numpy(), float(timestep), weights))
            sample = scheduler.step(output, timestep, sample, **extra).prev_sample
            points.append(sample.numpy())
        return [float(timestep) for timestep in scheduler.timesteps], points


def blended(scheduler, clean, noise, timesteps):
    if hasattr(scheduler, "add_noise"):
        return scheduler.add_noise(clean, noise, timesteps[:1])
    return scheduler.scale_noise(clean, timesteps[:1], noise)


def ours(name, config, steps, noise, weights, draws, *, strength=None, **options):
    scheduler = make_scheduler(name, config, steps, **options)
    if strength is None:
        state = scheduler.start(noise)
    else:
        begin = scheduler.first_index(strength)
        state = scheduler.resume(scheduler.noised(np.roll(noise, 1, axis=2), noise, begin), begin)
    points = [state.sample]
    for timestep in scheduler.timesteps[state.index :]:
        output = field(scheduler.model_input(state), timestep, weights)
        fresh = next(draws) if scheduler.wants_noise(state) else None
        state = scheduler.advance(state, output, fresh)
        assert state.sample.dtype == np.float32
        points.append(state.sample)
    assert state.index == len(scheduler.timesteps)
    return list(scheduler.timesteps), points


def compare(name, config, steps, *, strength=None, eta=0.0, mu=None, sigmas=None, origin=None):
    generator = np.random.default_rng(7)
    noise = generator.standard_normal(SHAPE, dtype=np.float32)
    weights = 0.4 * generator.standard_normal((4, 4)).astype(np.float32)
    draws = [generator.standard_normal(SHAPE, dtype=np.float32) for _ in range(2 * steps + 20)]
    expected_times, expected = theirs(
        name,
        config,
        steps,
        noise,
        weights,
        iter(draws),
        strength=strength,
        eta=eta,
        mu=mu,
        sigmas=sigmas,
        origin=origin,
    )
    times, points = ours(
        name,
        config,
        steps,
        noise,
        weights,
        iter(draws),
        strength=strength,
        eta=eta,
        mu=mu,
        sigmas=sigmas,
        original_inference_steps=origin,
    )
    np.testing.assert_allclose(times, expected_times, rtol=1e-6, atol=1e-4)
    assert len(points) == len(expected)
    assert np.all(np.isfinite(points[-1]))
    # float32 rounds relative to the largest numbers that a trajectory has gone through.
    scale = 0.0
    for place, (point, reference) in enumerate(zip(points, expected, strict=True)):
        scale = max(scale, float(np.abs(reference).max()))
        assert float(np.abs(point - reference).max()) <= 1e-5 * scale, f"at evaluation {place}"


@pytest.mark.parametrize("steps", [1, 4, 10, 20, 50])
@pytest.mark.parametrize("name", NAMES)
def test_sd_1_4_trajectory_is_that_of_diffusers(name, steps):
    compare(name, SD14, steps)


@pytest.mark.parametrize("spacing", ["leading", "linspace", "trailing"])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("name", NAMES)
def test_every_spacing_and_prediction_is_that_of_diffusers(name, prediction, spacing):
    if prediction == "sample" and name in NO_SAMPLE:
        pytest.skip("refused, see test_registry")
    compare(name, SD14 | {"timestep_spacing": spacing, "prediction_type": prediction}, 12)


NO_SAMPLE = ("pndm", "euler_ancestral", "kdpm2", "kdpm2_ancestral", "dpmpp_sde")


@pytest.mark.parametrize(
    "change",
    [
        {"beta_schedule": "linear"},
        {"beta_schedule": "squaredcos_cap_v2"},
        {"trained_betas": [0.0001 * (1 + i / 50) for i in range(1000)]},
        {"set_alpha_to_one": True},
        {"num_train_timesteps": 600},
        {"steps_offset": 0},
    ],
    ids=lambda change: "-".join(change),
)
@pytest.mark.parametrize("name", NAMES)
def test_every_noise_schedule_is_that_of_diffusers(name, change):
    compare(name, SD14 | change, 17)


@pytest.mark.parametrize(
    ("name", "schedule"),
    [("ddpm", "sigmoid"), ("ddpm", "laplace"), ("heun", "exp")],
)
def test_noise_schedules_of_one_class_are_those_of_diffusers(name, schedule):
    compare(name, SD14 | {"beta_schedule": schedule, "steps_offset": 0}, 12)


@pytest.mark.parametrize("name", NAMES)
def test_absent_fields_take_the_defaults_of_the_wanted_class(name):
    compare(name, {"clip_sample": False}, 9)


@pytest.mark.parametrize("steps", [6, 14, 25])
@pytest.mark.parametrize("spacing", ["use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas"])
@pytest.mark.parametrize("name", [*BY_SIGMA, *BY_UNIT_VARIANCE])
def test_sigma_spacings_are_those_of_diffusers(name, spacing, steps):
    compare(name, SD14 | {spacing: True}, steps)


@pytest.mark.parametrize("spacing", ["use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas"])
@pytest.mark.parametrize("name", [*BY_SIGMA, *BY_UNIT_VARIANCE])
def test_ends_of_the_sigma_spacings_are_those_of_diffusers(name, spacing):
    compare(name, SD14 | {spacing: True, "sigma_min": 0.05, "sigma_max": 11.0}, 11)


@pytest.mark.parametrize("schedule", ["scaled_linear", "squaredcos_cap_v2"])
@pytest.mark.parametrize("name", ["dpmpp_2m", "dpmpp_2m_sde"])
def test_lu_lambdas_are_those_of_diffusers(name, schedule):
    compare(name, SD14 | {"use_lu_lambdas": True, "beta_schedule": schedule}, 15)


@pytest.mark.parametrize("prediction", ["flow_prediction", "epsilon"])
@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("name", BY_UNIT_VARIANCE)
def test_flow_sigmas_are_those_of_diffusers(name, order, prediction):
    change = {"use_flow_sigmas": True, "flow_shift": 3.0, "solver_order": order}
    compare(name, SD14 | change | {"prediction_type": prediction}, 16)


@pytest.mark.parametrize("name", BY_UNIT_VARIANCE)
def test_dynamic_flow_shift_is_that_of_diffusers(name):
    change = {"use_flow_sigmas": True, "use_dynamic_shifting": True, "prediction_type": "flow_prediction"}
    compare(name, SD14 | change, 16, mu=0.9)


@pytest.mark.parametrize(
    "change",
    [
        {"use_karras_sigmas": True, "use_flow_sigmas": True, "prediction_type": "flow_prediction"},
        {"use_flow_sigmas": True, "shift_terminal": 0.1, "prediction_type": "flow_prediction"},
        {"final_sigmas_type": "sigma_min", "use_karras_sigmas": True},
        {"final_sigmas_type": "sigma_min", "predict_x0": False},
        {"final_sigmas_type": "sigma_min", "predict_x0": False, "prediction_type": "v_prediction"},
        {"final_sigmas_type": "sigma_min", "lower_order_final": False},
        {"disable_corrector": [0, 1, 5]},
        # diffusers' class gives NaN for bh1 that ends without noise; ours does not, see below.
        {"solver_type": "bh1", "final_sigmas_type": "sigma_min"},
        {"solver_type": "bh1", "final_sigmas_type": "sigma_min", "solver_order": 3},
    ],
    ids=lambda change: "-".join(change),
)
def test_unipc_fields_are_those_of_diffusers(change):
    compare("unipc", SD14 | change, 16)


@pytest.mark.parametrize("steps", [5, 6, 7, 20, 21, 22])
@pytest.mark.parametrize("order", [1, 3])
@pytest.mark.parametrize("name", BY_UNIT_VARIANCE)
def test_solver_orders_are_those_of_diffusers(name, order, steps):
    compare(name, SD14 | {"solver_order": order}, steps)


@pytest.mark.parametrize("order", [2, 3])
@pytest.mark.parametrize("solver", ["midpoint", "heun"])
@pytest.mark.parametrize("algorithm", ["dpmsolver++", "sde-dpmsolver++", "dpmsolver"])
@pytest.mark.parametrize("name", ["dpmpp_2m", "dpmpp_singlestep"])
def test_solver_kinds_are_those_of_diffusers(name, algorithm, solver, order):
    name = "dpmpp_2m_sde" if (name, algorithm) == ("dpmpp_2m", "sde-dpmsolver++") else name
    change = {"algorithm_type": algorithm, "solver_type": solver, "solver_order": order}
    for steps in (6, 15):
        compare(name, SD14 | change | {"final_sigmas_type": "sigma_min"}, steps)


@pytest.mark.parametrize(
    "change",
    [
        {"euler_at_final": True, "final_sigmas_type": "sigma_min"},
        {"lower_order_final": False, "final_sigmas_type": "sigma_min"},
        {"lower_order_final": False, "final_sigmas_type": "sigma_min", "solver_order": 3},
        {"lower_order_final": True, "solver_order": 3},
        {"lambda_min_clipped": -5.1, "beta_schedule": "squaredcos_cap_v2"},
    ],
    ids=lambda change: "-".join(change),
)
@pytest.mark.parametrize("name", ["dpmpp_2m", "dpmpp_2m_sde", "dpmpp_singlestep"])
def test_ends_of_dpm_solver_are_those_of_diffusers(name, change):
    compare(name, SD14 | change, 12)


@pytest.mark.parametrize("final", ["zero", "sigma_min"])
@pytest.mark.parametrize("name", ["euler", "dpmpp_2m", "dpmpp_2m_sde", "dpmpp_singlestep", "unipc"])
def test_final_sigma_is_that_of_diffusers(name, final):
    compare(name, SD14 | {"final_sigmas_type": final}, 16)


@pytest.mark.parametrize("prediction", ["v_prediction", "sample", "epsilon"])
@pytest.mark.parametrize(
    "name", ["ddim", "ddpm", "lcm", "tcd", "euler", "euler_ancestral", "dpmpp_2m", "dpmpp_2m_sde", "unipc"]
)
def test_zero_terminal_snr_is_that_of_diffusers(name, prediction):
    if (name in BY_TABLE and prediction == "epsilon") or (name in NO_SAMPLE and prediction == "sample"):
        pytest.skip("refused, see test_registry")
    change = {"rescale_betas_zero_snr": True, "prediction_type": prediction, "timestep_spacing": "trailing"}
    compare(name, SD14 | change, 12)


@pytest.mark.parametrize(
    "change",
    [
        {"interpolation_type": "log_linear"},
        {"timestep_type": "continuous", "prediction_type": "v_prediction"},
        {
            "timestep_type": "continuous",
            "prediction_type": "v_prediction",
            "use_karras_sigmas": True,
            "sigma_min": 0.002,
            "sigma_max": 700.0,
        },
        {"prediction_type": "original_sample"},
    ],
    ids=lambda change: "-".join(change),
)
def test_euler_fields_are_those_of_diffusers(change):
    compare("euler", SD14 | change, 12)


@pytest.mark.parametrize("eta", [0.3, 1.0])
@pytest.mark.parametrize("name", ["ddim", "tcd"])
def test_eta_adds_the_noise_of_diffusers(name, eta):
    for steps in (4, 8, 20):
        compare(name, SD14, steps, eta=eta)


@pytest.mark.parametrize("clip_range", [1.0, 0.7])
@pytest.mark.parametrize("name", ["ddim", "ddpm", "lcm", "heun"])
def test_samples_are_clipped_as_diffusers_does(name, clip_range):
    compare(name, SD14 | {"clip_sample": True, "clip_sample_range": clip_range}, 20)


@pytest.mark.parametrize("variance", ["fixed_small", "fixed_small_log", "fixed_large"])
def test_ddpm_variances_are_those_of_diffusers(variance):
    compare("ddpm", SD14 | {"variance_type": variance}, 12)


@pytest.mark.parametrize("name", ["lcm", "tcd"])
def test_steps_of_the_distillation_are_those_of_diffusers(name):
    for origin in (None, 20, 100):
        compare(name, SD14 | {"original_inference_steps": 40, "timestep_scaling": 7.0}, 7, origin=origin)


def test_pndm_with_runge_kutta_steps_is_that_of_diffusers():
    for steps in (4, 9, 20):
        compare("pndm", SD14 | {"skip_prk_steps": False}, steps)


FLOW = {"_class_name": "FlowMatchEulerDiscreteScheduler"}


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


@pytest.mark.parametrize("strength", [0.6, 0.35, 1.0])
@pytest.mark.parametrize("name", NAMES)
def test_image_to_image_is_that_of_diffusers(name, strength):
    for steps in (10, 21):
        compare(name, SD14, steps, strength=strength)


@pytest.mark.parametrize("strength", [0.3, 0.6])
@pytest.mark.parametrize("name", BY_UNIT_VARIANCE)
def test_image_to_image_of_third_order_is_that_of_diffusers(name, strength):
    compare(name, SD14 | {"solver_order": 3}, 20, strength=strength)


SDXL = SD14 | {
    "_class_name": "EulerDiscreteScheduler",
    "sample_max_value": 1.0,
    "interpolation_type": "linear",
}
PUBLISHED = {
    "sdxl-base": ("euler", SDXL | {"timestep_spacing": "leading", "use_karras_sigmas": False}, 30, {}),
    "sdxl-turbo": ("euler_ancestral", SDXL | {"timestep_spacing": "trailing"}, 1, {}),
    "sdxl-turbo-4": ("euler_ancestral", SDXL | {"timestep_spacing": "trailing"}, 4, {}),
    "sdxl-lightning": ("euler", SDXL | {"timestep_spacing": "trailing"}, 4, {}),
    "sdxl-lightning-sgm-uniform": ("euler", SDXL | {"timestep_spacing": "trailing"}, 8, {}),
    "hyper-sd-tcd": ("tcd", SDXL, 8, {"eta": 1.0}),
    "hyper-sd-ddim": ("ddim", SDXL | {"timestep_spacing": "trailing"}, 4, {}),
    "dmd2": ("lcm", SDXL, 4, {}),
    "lcm-dreamshaper": (
        "lcm",
        SD14 | {"_class_name": "LCMScheduler", "set_alpha_to_one": True, "original_inference_steps": 50},
        8,
        {},
    ),
    "sd-2-1": ("ddim", SD14 | {"_class_name": "DDIMScheduler", "prediction_type": "v_prediction"}, 25, {}),
    "playground-2": ("euler", SDXL | {"use_karras_sigmas": True, "timestep_spacing": "leading"}, 25, {}),
    "dreamshaper-deis": (
        "deis",
        SD14 | {"algorithm_type": "deis", "solver_type": "logrho", "solver_order": 2},
        25,
        {},
    ),
    "sd-3": ("flow_match_euler", {"_class_name": CLASSES["flow_match_euler"], "shift": 3.0}, 28, {}),
    "flux-schnell": (
        "flow_match_euler",
        {"base_shift": 0.5, "max_shift": 1.15, "shift": 1.0, "use_dynamic_shifting": False},
        4,
        {"sigmas": [1.0, 0.75, 0.5, 0.25]},
    ),
    "flux-dev": (
        "flow_match_euler",
        {"base_shift": 0.5, "max_shift": 1.15, "shift": 3.0, "use_dynamic_shifting": True},
        28,
        {"mu": 1.15, "sigmas": np.linspace(1, 1 / 28, 28).tolist()},
    ),
    "sana": (
        "dpmpp_2m",
        {"use_flow_sigmas": True, "flow_shift": 3.0, "prediction_type": "flow_prediction"},
        20,
        {},
    ),
    "wan": (
        "unipc",
        {"use_flow_sigmas": True, "flow_shift": 3.0, "prediction_type": "flow_prediction"},
        20,
        {},
    ),
}


@pytest.mark.parametrize("published", PUBLISHED)
def test_published_configurations_are_those_of_diffusers(published):
    name, config, steps, options = PUBLISHED[published]
    compare(name, config, steps, **options)
    if steps > 1 and published not in ("sana", "wan"):
        compare(name, config, steps, strength=0.6, **options)

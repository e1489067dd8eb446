"""Sana-Sprint's scheduler against diffusers', with what the pipeline does around it."""

import numpy as np
import pytest

from sdsetup.errors import SetupError, UsageError
from sdsetup.imaging.schedulers import FLOW_NAMES, NAMES, check, make_scheduler, name_of, plainest
from sdsetup.imaging.schedulers.protocol import State
from tests.sdsetup.imaging.schedulers.trajectories import FLOW, SD14, SHAPE, field

SCM = {"_class_name": "SCMScheduler", "prediction_type": "trigflow", "sigma_data": 0.5}

FLOW_DPM = {
    "_class_name": "DPMSolverMultistepScheduler",
    "flow_shift": 3.0,
    "prediction_type": "flow_prediction",
    "use_flow_sigmas": True,
}


def theirs(config, steps, noise, weights, draws):
    """Walk as SanaSprintPipeline.__call__ does: what the model is told, and the latents at each step."""
    import torch
    from diffusers import SCMScheduler
    from diffusers.schedulers import scheduling_scm

    scheduler = SCMScheduler.from_config(config)
    scheduler.set_timesteps(steps, intermediate_timesteps=1.3 if steps == 2 else None)
    scheduler.set_begin_index(0)
    unit = scheduler.config.sigma_data
    latents = torch.from_numpy(noise) * unit
    told, points = [], []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scheduling_scm, "randn_tensor", lambda *_, **__: torch.from_numpy(next(draws)))
        for timestep in scheduler.timesteps[:-1]:
            share = torch.sin(timestep) / (torch.cos(timestep) + torch.sin(timestep))
            length = torch.sqrt(share**2 + (1 - share) ** 2)
            seen = latents / unit * length
            output = torch.from_numpy(field(seen.numpy(), float(share), weights))
            output = ((1 - 2 * share) * seen + (1 - 2 * share + 2 * share**2) * output) / length * unit
            latents, clean = scheduler.step(output, timestep, latents, return_dict=False)
            told.append(float(share))
            points.append(((latents / unit).numpy(), (clean / unit).numpy()))
    return told, points


@pytest.mark.torch
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 20])
@pytest.mark.parametrize("unit", [0.5, 0.7])
def test_each_step_is_that_of_diffusers(unit, steps):
    generator = np.random.default_rng(7)
    noise = generator.standard_normal(SHAPE, dtype=np.float32)
    weights = 0.4 * generator.standard_normal((4, 4)).astype(np.float32)
    draws = [generator.standard_normal(SHAPE, dtype=np.float32) for _ in range(steps)]
    config = SCM | {"sigma_data": unit}
    told, points = theirs(config, steps, noise, weights, iter(draws))
    scheduler = make_scheduler("scm", config, steps)
    np.testing.assert_allclose(scheduler.timesteps, told, rtol=1e-6)
    state, fresh = scheduler.start(noise), iter(draws)
    for share, (sample, clean) in zip(scheduler.timesteps, points, strict=True):
        output = field(scheduler.model_input(state), share, weights)
        np.testing.assert_allclose(scheduler.denoised(state, output), clean, atol=2e-5)
        state = scheduler.advance(state, output, next(fresh) if scheduler.wants_noise(state) else None)
        assert state.sample.dtype == np.float32
        np.testing.assert_allclose(state.sample, sample, atol=2e-5)
    assert state.index == steps


def test_a_model_that_is_right_points_to_the_clean_latents():
    random = np.random.default_rng(5)
    clean, noise = (random.standard_normal(SHAPE, np.float32) for _ in range(2))
    scheduler = make_scheduler("scm", SCM, 4)
    for index in range(4):
        sample = scheduler.noised(clean, noise, index)
        found = scheduler.denoised(State(index=index, sample=sample), noise - clean)
        np.testing.assert_allclose(found, clean, atol=1e-5)
    assert scheduler.noised(clean, noise, 4) is clean


def test_it_steps_its_own_models_alone():
    assert name_of(SCM) == check(SCM) == plainest(SCM) == "scm"
    for name in (*NAMES, *FLOW_NAMES):
        with pytest.raises(SetupError, match="SCMScheduler") as caught:
            check(SCM, name)
        assert "--scheduler scm" in caught.value.hint
    for config in (SD14, FLOW):
        with pytest.raises(SetupError, match=config["_class_name"]) as caught:
            check(config, "scm")
        assert caught.value.code == "scheduler.unsupported"


@pytest.mark.parametrize("change", [{"prediction_type": "epsilon"}, {"sigma_data": 0}, {"sigma_data": "x"}])
def test_what_its_configuration_may_not_say_is_named(change):
    with pytest.raises(SetupError, match=next(iter(change))):
        check(SCM | change)


def test_steps_are_those_of_training_at_most():
    with pytest.raises(UsageError, match="out of range"):
        make_scheduler("scm", SCM, 1001)


def test_the_plainest_scheduler_is_eulers_or_the_configurations_own():
    assert plainest(SD14) == "euler"
    assert plainest(FLOW) == plainest(FLOW_DPM) == "flow_match_euler"
    assert plainest(SD14 | {"_class_name": "DPMSolverMultistepScheduler"}) == "euler"


def test_eulers_method_takes_the_shift_of_a_solver_of_flow_matching():
    expected = make_scheduler("flow_match_euler", FLOW | {"shift": 3.0}, 8)
    assert make_scheduler("flow_match_euler", FLOW_DPM, 8) == expected
    with pytest.raises(SetupError, match="models of diffusion"):
        check(FLOW, "dpmpp_2m")
    with pytest.raises(SetupError, match="models of flow matching"):
        check(FLOW_DPM | {"use_flow_sigmas": False}, "flow_match_euler")

"""Where image to image, inpainting and a refiner begin and end, against diffusers' own pipelines."""

import types
import warnings

import numpy as np
import pytest

from sdsetup.errors import UsageError
from sdsetup.imaging.schedulers import FLOW_NAMES, NAMES, make_scheduler
from tests.sdsetup.imaging.schedulers.trajectories import (
    FLOW,
    SD14,
    SHAPE,
    blended,
    field,
    theirs_made,
)

pytestmark = pytest.mark.torch
ALL = [*NAMES, *FLOW_NAMES]


def base_of(name):
    return FLOW if name in FLOW_NAMES else SD14


def reference(name, steps):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scheduler = theirs_made(name, base_of(name))
        scheduler.set_timesteps(steps)
    return scheduler


@pytest.mark.parametrize("name", ALL)
def test_image_to_image_begins_where_the_pipelines_do(name):
    from diffusers import FluxImg2ImgPipeline, StableDiffusionImg2ImgPipeline

    kind = FluxImg2ImgPipeline if name in FLOW_NAMES else StableDiffusionImg2ImgPipeline
    for steps in (4, 10, 28, 30):
        scheduler = make_scheduler(name, base_of(name), steps)
        stand_in = types.SimpleNamespace(scheduler=reference(name, steps))
        for strength in (0.0, 0.1, 0.3, 0.55, 0.6, 0.8, 0.99, 1.0):
            timesteps, _ = kind.get_timesteps(stand_in, steps, strength, "cpu")
            begin = scheduler.first_index(strength)
            np.testing.assert_allclose(
                scheduler.timesteps[begin:], [float(t) for t in timesteps], rtol=1e-6, atol=1e-4
            )


@pytest.mark.parametrize("fraction", [0.2, 0.5, 0.8, 0.83, 0.999])
@pytest.mark.parametrize("name", NAMES)
def test_a_refiner_begins_where_the_pipeline_does(name, fraction):
    from diffusers import StableDiffusionXLImg2ImgPipeline

    for steps in (7, 20, 30):
        scheduler = make_scheduler(name, SD14, steps)
        stand_in = types.SimpleNamespace(scheduler=reference(name, steps))
        timesteps, _ = StableDiffusionXLImg2ImgPipeline.get_timesteps(stand_in, steps, 1.0, "cpu", fraction)
        begin = scheduler.refiner_index(fraction)
        assert len(scheduler.timesteps) - begin == len(timesteps)
        scheduler.resume(np.zeros(SHAPE, np.float32), begin)
        cutoff = round(1000 - fraction * 1000)
        made = [float(t) for t in stand_in.scheduler.timesteps if t >= cutoff]
        assert scheduler.split_index(fraction) == len(made)


def test_a_base_and_its_refiner_meet():
    for name in ("euler", "ddim", "dpmpp_2m", "unipc"):
        scheduler = make_scheduler(name, SD14, 25)
        assert 0 < scheduler.split_index(0.8) == scheduler.refiner_index(0.8) < 25
    heun = make_scheduler("heun", SD14, 25)
    # As in diffusers: the base ends with the first evaluation of the step that the refiner begins with.
    assert heun.split_index(0.8) == heun.refiner_index(0.8) + 1


@pytest.mark.parametrize("strength", [0.6, 1.0])
@pytest.mark.parametrize("name", ALL)
def test_inpainting_noises_the_known_part_as_the_pipeline_does(name, strength):
    import torch

    steps = 10
    generator = np.random.default_rng(3)
    noise, clean = generator.standard_normal((2, *SHAPE), dtype=np.float32)
    scheduler = make_scheduler(name, base_of(name), steps)
    begin = scheduler.first_index(strength)
    other = reference(name, steps)
    if hasattr(other, "set_begin_index"):
        other.set_begin_index(begin)
    timesteps = other.timesteps[begin:]
    if name == "dpmpp_sde":
        pytest.skip("its step draws from torchsde, which is not installed; its levels are those of heun")
    for place, timestep in enumerate(timesteps):
        expected = blended(other, torch.from_numpy(clean), torch.from_numpy(noise), timesteps[place:])
        level = scheduler.noised(clean, noise, begin + place)
        assert level.dtype == np.float32
        np.testing.assert_allclose(level, expected.numpy(), rtol=1e-5, atol=1e-5 * np.abs(level).max())
        sample = torch.from_numpy(level)
        seen = other.scale_model_input(sample, timestep) if hasattr(other, "scale_model_input") else sample
        output = torch.from_numpy(field(seen.numpy(), float(timestep), np.eye(4, dtype=np.float32)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            other.step(output, timestep, sample)
    assert scheduler.noised(clean, noise, len(scheduler.timesteps)) is clean


def test_a_step_of_two_evaluations_is_not_begun_in_the_middle():
    heun = make_scheduler("heun", SD14, 5)
    with pytest.raises(ValueError, match="no beginning of a step"):
        heun.resume(np.zeros(SHAPE, np.float32), 3)
    assert heun.resume(np.zeros(SHAPE, np.float32), 4).begin == 4


@pytest.mark.parametrize("name", ALL)
def test_too_little_strength_for_a_step_begins_at_the_end(name):
    for steps in (1, 4):
        scheduler = make_scheduler(name, base_of(name), steps)
        clean = np.ones(SHAPE, np.float32)
        end = scheduler.first_index(0.0)
        assert end == len(scheduler.timesteps) or name == "pndm"
        assert scheduler.resume(scheduler.noised(clean, clean, end), end).index == end


def test_pndm_with_runge_kutta_steps_does_not_begin_in_the_middle():
    pndm = make_scheduler("pndm", SD14 | {"skip_prk_steps": False}, 10)
    assert pndm.first_index(1.0) == 0
    with pytest.raises(UsageError, match="Runge-Kutta") as caught:
        pndm.first_index(0.5)
    assert "--scheduler ddim" in caught.value.hint


@pytest.mark.parametrize("name", ["lcm", "tcd"])
def test_strength_lays_out_the_steps_of_a_distilled_model(name):
    for strength in (0.5, 0.73, 1.0):
        other = theirs_made(name, SD14)
        other.set_timesteps(6, strength=strength)
        scheduler = make_scheduler(name, SD14, 6, strength=strength)
        assert list(scheduler.timesteps) == [float(t) for t in other.timesteps]
    with pytest.raises(UsageError, match="distilled for 1 to 5"):
        make_scheduler(name, SD14, 6, strength=0.1)


@pytest.mark.parametrize("fraction", [0, 1, -0.5, float("nan")])
def test_a_refiner_takes_over_somewhere_on_the_way(fraction):
    scheduler = make_scheduler("euler", SD14, 5)
    for ask in (scheduler.split_index, scheduler.refiner_index):
        with pytest.raises(UsageError, match="refiner"):
            ask(fraction)

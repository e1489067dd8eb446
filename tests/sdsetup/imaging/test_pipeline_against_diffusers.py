"""Whole images against diffusers' StableDiffusionPipeline on the same checkpoint and the same noise."""

import warnings
from dataclasses import replace

import numpy as np
import pytest

from sdsetup.imaging.latent_noise import LatentNoise
from sdsetup.imaging.request import Request
from sdsetup.imaging.schedulers import NAMES
from tests.sdsetup.imaging.schedulers.trajectories import CLASSES
from tests.sdsetup.imaging.test_pipeline import pipeline_of, psnr

pytestmark = pytest.mark.torch
REQUEST = Request(
    prompt="a red horse on the moon",
    negative_prompt="blurry",
    seed=5,
    steps=8,
    guidance_scale=7.5,
    width=136,
    height=72,
    images=2,
)
# All but those that draw noise on the way, whose steps are compared on their own.
STOCHASTIC = ("euler_ancestral", "kdpm2_ancestral", "dpmpp_2m_sde", "dpmpp_sde", "ddpm", "lcm")
DETERMINISTIC = [name for name in NAMES if name not in STOCHASTIC]


@pytest.fixture(scope="module")
def reference(tiny_checkpoint):
    from diffusers import StableDiffusionPipeline

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipeline = StableDiffusionPipeline.from_pretrained(
            tiny_checkpoint, safety_checker=None, feature_extractor=None, requires_safety_checker=False
        )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="module")
def upcast(shared, tiny_checkpoint, make_package):
    folder = shared / "package-fp32"
    return make_package(tiny_checkpoint, folder, target="cpu", precision="fp32")


def pixels_of_diffusers(pipeline, request):
    import diffusers
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = {**pipeline.scheduler.config, "clip_sample": False}
        pipeline.scheduler = getattr(diffusers, CLASSES[request.scheduler]).from_config(config)
        noise = LatentNoise.of(request.seed, request.images).draw(
            (4, request.height // 8, request.width // 8)
        )
        made = pipeline(
            [request.prompt] * request.images,
            negative_prompt=[request.negative_prompt] * request.images,
            latents=torch.from_numpy(noise),
            num_inference_steps=request.steps,
            guidance_scale=request.guidance_scale,
            width=request.width,
            height=request.height,
            output_type="np",
        ).images
    return (made * 255).round().astype(np.uint8)


@pytest.mark.parametrize("scheduler", DETERMINISTIC)
def test_a_batch_in_float32_is_diffusers_batch(reference, upcast, scheduler):
    request = replace(REQUEST, scheduler=scheduler)
    made = pipeline_of(upcast).generate(request, check_safety=False)
    assert psnr(made.pixels, pixels_of_diffusers(reference, request)) > 70


@pytest.mark.parametrize("change", [{"guidance_scale": 1.0}, {"negative_prompt": ""}, {"images": 1}], ids=str)
def test_every_option_means_what_it_means_in_diffusers(reference, upcast, change):
    request = replace(REQUEST, scheduler="euler", **change)
    made = pipeline_of(upcast).generate(request, check_safety=False)
    assert psnr(made.pixels, pixels_of_diffusers(reference, request)) > 70


def test_a_float16_package_on_the_cpu_is_within_its_gate_of_diffusers_in_float32(reference, tiny_package):
    request = replace(REQUEST, scheduler="pndm")
    made = pipeline_of(tiny_package).generate(request, check_safety=False)
    assert psnr(made.pixels, pixels_of_diffusers(reference, request)) > 40


def test_the_safety_checker_of_a_package_answers_for_every_image(tiny_package):
    made = pipeline_of(tiny_package).generate(REQUEST)
    assert len(made.flagged) == 2
    for image, objected in zip(made.pixels, made.flagged, strict=True):
        assert bool(image.any()) != objected

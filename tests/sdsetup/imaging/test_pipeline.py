import math

import numpy as np
import pytest

from conversions.events import Advanced, Notice, ignore
from sdsetup.errors import SetupError, UsageError
from sdsetup.imaging.latent_noise import LatentNoise
from sdsetup.imaging.pipeline import Pipeline
from sdsetup.imaging.request import Request, complete
from sdsetup.imaging.schedulers import NAMES
from sdsetup.runtime.devices import choose_device, list_devices
from sdsetup.runtime.package import open_for_images
from sdsetup.runtime.runner import LocalRunner
from tests.sdsetup import toy_package

REQUEST = Request(prompt="a red horse", negative_prompt="blue", seed=7, steps=6)


def cpu():
    return choose_device(list_devices(), target="cpu")


def pipeline_of(folder, listener=ignore, **options):
    package = open_for_images(folder)
    return Pipeline(
        package=package,
        runner=LocalRunner(package=package, device=cpu(), listener=listener, **options),
        listener=listener,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return toy_package.write(tmp_path_factory.mktemp("packages") / "toy_package")


@pytest.fixture(scope="module")
def pipeline(folder):
    return pipeline_of(folder)


def pixels_of(pipeline, **changes):
    from dataclasses import replace

    return pipeline.generate(replace(REQUEST, **changes)).pixels


def psnr(one, two):
    error = np.mean((one.astype(float) - two.astype(float)) ** 2)
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)


def test_noise_of_a_seed_is_the_same_on_every_machine():
    noise = LatentNoise.of(42, 1)
    first, second = noise.draw((4, 8, 8)), noise.draw((4, 8, 8))
    assert first.dtype == np.float32
    # Frozen: a numpy that draws otherwise would change every image.
    np.testing.assert_array_equal(
        first[0, 0, 0, :4],
        np.float32([0.14190717, -1.6685079, -1.332108, 0.58255345]),
    )
    np.testing.assert_array_equal(
        second[0, 3, 7, 4:],
        np.float32([0.10604081, 0.55654317, -0.9039198, -0.65164614]),
    )


def test_each_image_of_a_batch_has_the_noise_of_its_own_seed():
    batch = LatentNoise.of(10, 3)
    alone = [LatentNoise.of(10 + place, 1) for place in range(3)]
    for _ in range(2):
        together = batch.draw((4, 2, 2))
        np.testing.assert_array_equal(together, np.concatenate([noise.draw((4, 2, 2)) for noise in alone]))


def test_the_same_request_gives_the_same_image(pipeline):
    assert np.array_equal(pixels_of(pipeline), pixels_of(pipeline))


@pytest.mark.parametrize(
    "change",
    [
        {"prompt": "a blue horse"},
        {"prompt": "a (red:1.5) horse"},
        {"negative_prompt": "green"},
        {"seed": 8},
        {"steps": 7},
        {"guidance_scale": 3.0},
        {"guidance_scale": 1.0},
        {"scheduler": "ddim"},
        {"scheduler": "ddim", "eta": 1.0},
    ],
    ids=str,
)
def test_everything_in_a_request_reaches_the_image(pipeline, change):
    assert psnr(pixels_of(pipeline, **change), pixels_of(pipeline)) < 60


def test_without_guidance_the_negative_prompt_means_nothing(pipeline):
    one = pixels_of(pipeline, guidance_scale=1.0)
    two = pixels_of(pipeline, guidance_scale=1.0, negative_prompt="other")
    assert np.array_equal(one, two)


@pytest.mark.parametrize("scheduler", NAMES)
def test_every_scheduler_makes_an_image(pipeline, scheduler):
    pixels = pixels_of(pipeline, scheduler=scheduler)
    assert pixels.shape == (1, 64, 64, 3)
    assert pixels.std() > 2


@pytest.mark.parametrize("scheduler", ["pndm", "euler_ancestral"])
def test_a_batch_is_the_images_of_its_seeds(pipeline, scheduler):
    batch = pixels_of(pipeline, images=3, scheduler=scheduler)
    for place in range(3):
        alone = pixels_of(pipeline, seed=REQUEST.seed + place, scheduler=scheduler)
        assert psnr(batch[place], alone[0]) > 60


def test_a_batch_goes_through_the_unet_at_once(folder):
    pipeline = pipeline_of(folder)
    pipeline.generate(Request(prompt="a horse", steps=5, images=4, scheduler="ddim"))
    assert len(pipeline.runner.usage()["unet"].run_seconds) == 5


@pytest.mark.parametrize(("width", "height"), [(8, 8), (72, 40), (200, 136)])
def test_any_multiple_of_eight_is_a_size(pipeline, width, height):
    assert pixels_of(pipeline, width=width, height=height).shape == (1, height, width, 3)


def test_a_prompt_of_any_length_works(pipeline):
    long = pixels_of(pipeline, prompt="a red horse " * 60, negative_prompt="")
    assert psnr(long, pixels_of(pipeline, negative_prompt="")) < 60


def test_fp16_package_makes_nearly_the_same_image(pipeline, tmp_path):
    halved = pipeline_of(toy_package.write(tmp_path / "halved", precision="fp16"))
    assert psnr(pixels_of(halved), pixels_of(pipeline)) > 40


def test_progress_counts_every_step_in_order(folder):
    events = []
    pipeline_of(folder, events.append).generate(REQUEST)
    counted = [event.done for event in events if isinstance(event, Advanced)]
    assert counted == list(range(1, 8))  # PNDM repeats its first step


@pytest.mark.parametrize("low_memory", [True, False])
def test_submodels_are_closed_after_their_stage_only_when_memory_is_short(folder, low_memory):
    pipeline = pipeline_of(folder, low_memory=low_memory)
    first = pipeline.generate(REQUEST).pixels
    assert np.array_equal(first, pipeline.generate(REQUEST).pixels)
    loads = {name: len(used.load_seconds) for name, used in pipeline.runner.usage().items()}
    assert loads == dict.fromkeys(("text_encoder", "unet", "vae_decoder"), 2 if low_memory else 1)


def test_a_flagged_image_is_black_and_said(tmp_path):
    events = []
    strict = pipeline_of(toy_package.write(tmp_path / "strict", objects_above=-100.0), events.append)
    images = strict.generate(REQUEST)
    assert images.flagged == (True,)
    assert not images.pixels.any()
    assert any("safety checker objected to image 1" in e.text for e in events if isinstance(e, Notice))


def test_a_lenient_safety_checker_changes_nothing(pipeline, tmp_path):
    lenient = pipeline_of(toy_package.write(tmp_path / "lenient", objects_above=100.0))
    assert np.array_equal(pixels_of(lenient), pixels_of(pipeline))


@pytest.mark.parametrize(
    ("submodel", "name", "where"),
    [
        ("text_encoder", "table", "text_encoder gave"),
        ("unet", "slow", "unet gave numbers that are not finite at step 1 of 7"),
        ("vae_decoder", "mix", "vae_decoder gave"),
    ],
)
def test_numbers_that_are_not_finite_are_blamed_on_their_submodel(tmp_path, submodel, name, where):
    plain = toy_package.weights(800, 0)[submodel][name]
    broken = toy_package.write(tmp_path / "nan", change={submodel: {name: np.full_like(plain, np.nan)}})
    with pytest.raises(SetupError, match=where):
        pipeline_of(broken).generate(REQUEST)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "--steps 0"),
        ({"steps": 5000}, "--steps 5000"),
        ({"width": 100}, "--width 100"),
        ({"height": 0}, "--height 0"),
        ({"height": -64}, "--height -64"),
        ({"images": 0}, "--images 0"),
        ({"images": 1000}, "--images 1000"),
        ({"seed": -1}, "--seed -1"),
        ({"guidance_scale": math.nan}, "--guidance-scale nan"),
        ({"scheduler": "magic"}, "'magic'"),
        ({"scheduler": "euler", "eta": 0.5}, "--eta 0.5"),
    ],
)
def test_a_senseless_request_is_refused_before_anything_is_loaded(folder, change, message):
    from dataclasses import replace

    with pytest.raises(UsageError, match=message):
        complete(replace(REQUEST, **change), open_for_images(folder))


def test_a_size_that_does_not_work_comes_with_ones_that_do(folder):
    with pytest.raises(UsageError) as caught:
        complete(Request(prompt="x", width=100), open_for_images(folder))
    assert caught.value.hint == "use --width 96 or --width 104."

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from conversions.events import Notice
from conversions.recipe import ImageSize
from sdsetup import demo
from sdsetup.errors import SetupError
from sdsetup.imaging.blank_image import find_blank
from sdsetup.imaging.image_file import read_metadata
from sdsetup.imaging.smoke_test import Trial, _inputs_for, keep, raise_for, smoke_test, trials_for, try_out
from sdsetup.runtime.package import open_for_images
from sdsetup.runtime.start import DeviceRequest
from tests.sdsetup import toy_package
from tests.sdsetup.imaging.test_pipeline import pipeline_of

TRIAL = Trial(prompt="a horse", seed=1)


def outcomes_of(folder, trial=TRIAL):
    outcomes = smoke_test(pipeline_of(folder), (trial,), steps=5)
    raise_for(outcomes)
    return outcomes


def test_a_package_that_makes_an_image_passes(tmp_path):
    (outcome,) = outcomes_of(toy_package.write(tmp_path / "good"))
    assert outcome.faults == ()
    assert outcome.deviation > 2


@pytest.mark.parametrize(("value", "fault"), [(-1e4, "is black"), (0.0, "one colour all over")])
def test_a_decoder_that_shows_nothing_fails(tmp_path, value, fault):
    weights = {"mix": np.zeros((3, 4, 1, 1), np.float32), "lift": np.float32([value])}
    folder = toy_package.write(tmp_path / "bad", change={"vae_decoder": weights})
    with pytest.raises(SetupError, match=fault):
        outcomes_of(folder)


def test_an_image_that_the_judge_dislikes_fails_with_its_reasons(tmp_path):
    trial = Trial(prompt="a horse", seed=1, judge=lambda _, caption: (f"no {caption[2:]} there",))
    with pytest.raises(SetupError, match="no horse there"):
        outcomes_of(toy_package.write(tmp_path / "good"), trial)


def test_an_objecting_safety_checker_does_not_hide_the_image(tmp_path):
    (outcome,) = outcomes_of(toy_package.write(tmp_path / "strict", objects_above=-100.0))
    assert outcome.faults == ()


def test_only_images_of_the_demo_are_judged():
    from hashlib import sha256

    weights = "vae/diffusion_pytorch_model.safetensors"
    digest = sha256((demo.checkpoint_path() / weights).read_bytes()).hexdigest()
    judged = trials_for({"checkpoint": {"sha256": {weights: digest}}})
    assert [(trial.prompt, trial.seed) for trial in judged] == list(demo.CAPTIONS)
    black = np.zeros((64, 64, 3), np.uint8)
    assert all(trial.judge(black, trial.prompt) for trial in judged)
    for other in ({}, {"sha256": {}}, {"sha256": {weights: "0" * 64}}):
        (trial,) = trials_for({"checkpoint": other})
        assert trial.judge is None


def test_a_package_is_tried_out_on_a_device_and_its_image_kept(tmp_path):
    package = open_for_images(toy_package.write(tmp_path / "toy"))
    heard = []
    outcomes, runner = try_out(
        package, DeviceRequest(provider="cpu"), steps=4, cpu_limit_seconds=1e9, listener=heard.append
    )
    assert runner.usage()["unet"].run_seconds
    (outcome,) = outcomes
    assert (outcome.request.steps, outcome.request.seed) == (4, 1)
    assert outcome.pixels.shape == (64, 64, 3)
    assert outcome.mean == pytest.approx(outcome.pixels.mean())
    for number, name in ((1, "first.png"), (2, "first-2.png")):
        path = keep(outcome, package, runner, tmp_path / "first.png")
        assert path == tmp_path / name, number
        assert read_metadata(path).fingerprint == package.fingerprint
    with pytest.raises(SetupError):
        keep(outcome, package, runner, tmp_path / "toy" / "manifest.json" / "x.png")
    raise_for(outcomes)


def test_a_limit_is_for_the_cpu_and_for_all_images_together(tmp_path):
    package = open_for_images(toy_package.write(tmp_path / "toy"))
    heard = []
    outcomes, _ = try_out(
        package, DeviceRequest(provider="cpu"), steps=20, cpu_limit_seconds=1e-9, listener=heard.append
    )
    assert outcomes[0].request.steps == 8
    assert any("no GPU to use" in event.text for event in heard if isinstance(event, Notice))


@pytest.mark.parametrize(
    ("tasks", "given"),
    [
        ({"text-to-image", "image-to-image"}, []),
        ({"image-to-image"}, ["init_image"]),
        ({"inpainting"}, ["init_image", "mask"]),
    ],
)
def test_a_model_gets_the_images_that_it_cannot_do_without(tmp_path, tasks, given):
    native = ImageSize(width=64, height=48)
    package = SimpleNamespace(recipe=SimpleNamespace(tasks=tasks, native=native))
    inputs = _inputs_for(package, tmp_path)
    assert sorted(inputs) == given
    if "init_image" in given:
        image = np.asarray(Image.open(inputs["init_image"]))
        assert image.shape == (48, 64, 3)
        assert (image[0, 0, 0], image[-1, -1, 2]) == (0, 255)
        assert np.all(np.diff(image[5, :, 1].astype(int)) > 0)
    if "mask" in given:
        mask = np.asarray(Image.open(inputs["mask"]))
        expected = np.zeros((48, 64), np.uint8)
        expected[8:-8, 8:-8] = 255
        np.testing.assert_array_equal(mask, expected)


def test_wrong_images_are_counted_and_named(tmp_path):
    (good,) = smoke_test(pipeline_of(toy_package.write(tmp_path / "good")), (TRIAL,), steps=2)
    bad = replace(good, faults=("is black", "has no horse"))
    with pytest.raises(SetupError) as caught:
        raise_for((good, bad))
    assert caught.value.code == "smoke.image"
    assert (
        '1 of 2 smoke test images are wrong. "a horse" (seed 1): is black; has no horse.'
        in caught.value.message
    )


@pytest.mark.parametrize(
    ("pixels", "empty"),
    [
        (np.zeros((8, 8, 3), np.uint8), True),
        (np.full((8, 8, 3), 128, np.uint8), True),
        (np.full((8, 8, 3), 255, np.uint8), True),
        (np.arange(192, dtype=np.uint8).reshape(8, 8, 3), False),
    ],
)
def test_emptiness_is_seen(pixels, empty):
    assert bool(find_blank(pixels)) == empty

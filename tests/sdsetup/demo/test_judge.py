import numpy as np
import pytest

from sdsetup.demo.judge import judge, read
from sdsetup.demo.scene import PALETTE, detect_scene
from sdsetup.errors import UsageError


def canvas(colour="white", side=128):
    return np.full((side, side, 3), PALETTE[colour], np.uint8)


def with_disc(image, colour, x, y, radius):
    rows, columns = np.indices(image.shape[:2])
    image[(rows - y) ** 2 + (columns - x) ** 2 <= radius**2] = PALETTE[colour]
    return image


@pytest.mark.robustness  # the smoke tests draw and judge too
@pytest.mark.torch
def test_drawn_images_are_judged_right_and_other_captions_wrong():
    import torch

    from tests.demo_training.world import captions, draw_bytes, sample

    scenes = sample(300, seed=7)
    texts = captions(scenes)
    images = draw_bytes(scenes, torch.Generator().manual_seed(5)).permute(0, 2, 3, 1).numpy()
    right = [judge(image, text).passed for image, text in zip(images, texts, strict=True)]
    assert np.mean(right) >= 0.99
    others = [*texts[1:], texts[0]]
    wrong = [judge(image, text).passed for image, text in zip(images, others, strict=True)]
    assert np.mean(wrong) <= 0.02


def test_an_image_is_described_from_left_to_right():
    image = with_disc(with_disc(canvas("blue"), "yellow", 90, 40, 20), "red", 30, 70, 14)
    scene = detect_scene(image)
    assert scene.background == "blue"
    assert [thing.colour for thing in scene.things] == ["red", "yellow"]
    assert [thing.shape for thing in scene.things] == ["circle", "circle"]
    assert scene.things[0].x == pytest.approx(30.5, abs=0.5)
    assert scene.things[0].radius == pytest.approx(14.5, abs=0.7)


@pytest.mark.parametrize(
    ("caption", "fault"),
    [
        ("a green circle on a white background", "a red circle is where a green circle belongs"),
        ("a red square on white", "a red circle is where a red square belongs"),
        ("a red circle on a black background", "the background is white, not black"),
        ("two red circles on white", "1 things were found, not 2"),
        ("a small red circle", "the red circle is not small"),
    ],
)
def test_each_way_of_being_wrong_is_named(caption, fault):
    verdict = judge(with_disc(canvas(), "red", 60, 60, 30), caption)
    assert not verdict.passed
    assert verdict.reasons == (fault,)


def test_left_and_right_are_told_apart():
    image = with_disc(with_disc(canvas(), "red", 30, 60, 20), "blue", 95, 60, 20)
    assert judge(image, "a red circle left of a blue circle").passed
    assert not judge(image, "a red circle right of a blue circle").passed


@pytest.mark.parametrize("image", [canvas(), np.zeros((128, 128, 3), np.uint8)])
def test_an_empty_image_fails(image):
    assert not judge(image, "a red circle").passed


def test_noise_fails():
    noise = np.random.default_rng(0).integers(0, 256, (128, 128, 3), dtype=np.uint8)
    assert not judge(noise, "a red circle").passed


def test_a_caption_of_another_world_is_refused():
    with pytest.raises(UsageError, match="not a caption that the demo knows"):
        read("a photograph of an astronaut")

import numpy as np
import pytest

from sdsetup.errors import SetupError
from sdsetup.imaging.blank_image import find_blank
from sdsetup.imaging.smoke_test import Trial, raise_for, smoke_test
from tests.sdsetup import toy_package
from tests.sdsetup.imaging.test_pipeline import pipeline_of

TRIAL = Trial(prompt="a horse", seed=1)


def outcomes_of(folder, trial=TRIAL):
    outcomes = smoke_test(pipeline_of(folder), (trial,), steps=5)
    raise_for(outcomes)
    return outcomes


def test_a_package_that_makes_a_image_passes(tmp_path):
    (outcome,) = outcomes_of(toy_package.write(tmp_path / "good"))
    assert outcome.faults == ()
    assert outcome.deviation > 2


@pytest.mark.parametrize(("value", "fault"), [(-1e4, "is black"), (0.0, "one colour all over")])
def test_a_decoder_that_shows_nothing_fails(tmp_path, value, fault):
    weights = {"mix": np.zeros((3, 4, 1, 1), np.float32), "lift": np.float32([value])}
    folder = toy_package.write(tmp_path / "bad", change={"vae_decoder": weights})
    with pytest.raises(SetupError, match=fault):
        outcomes_of(folder)


def test_a_image_that_the_judge_dislikes_fails_with_its_reasons(tmp_path):
    trial = Trial(prompt="a horse", seed=1, judge=lambda _, caption: (f"no {caption[2:]} there",))
    with pytest.raises(SetupError, match="no horse there"):
        outcomes_of(toy_package.write(tmp_path / "good"), trial)


def test_an_objecting_safety_checker_does_not_hide_the_image(tmp_path):
    (outcome,) = outcomes_of(toy_package.write(tmp_path / "strict", objects_above=-100.0))
    assert outcome.faults == ()


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

"""Sizes and steps that a time allows, and what is said of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from conversions.events import Event, Notice
from conversions.recipe import ImageSize
from sdsetup.imaging import time_budget
from sdsetup.imaging.smoke_test import Trial, smoke_test
from tests.sdsetup import toy_package
from tests.sdsetup.imaging.test_pipeline import pipeline_of

SD = ImageSize(width=512, height=512)


@pytest.mark.parametrize(
    ("step_seconds", "side", "steps"),
    [
        (0.1, 512, 20),  # 0.4 s a step of the whole size
        (0.5, 512, 18),  # 2 s: 22 of them in 45 s, 4 for what is beside
        (1.0, 384, 16),  # 4 s at 512: too few steps are left
        (3.0, 256, 11),
        (60.0, 256, 8),  # nothing fits: the smallest
    ],
)
def test_the_largest_size_with_enough_steps_is_chosen(step_seconds: float, side: int, steps: int) -> None:
    effort = time_budget.fit(SD, 8, 20, step_seconds, 45)
    assert (effort.size, effort.steps) == (ImageSize(width=side, height=side), steps)
    assert effort.seconds <= 45 or steps == 8


def test_a_small_checkpoint_keeps_its_size_and_a_distilled_one_its_few_steps() -> None:
    tiny = ImageSize(width=64, height=64)
    assert time_budget.fit(tiny, 8, 20, 5.0, 45) == time_budget.Effort(size=tiny, steps=8, seconds=60.0)
    assert time_budget.fit(SD, 8, 4, 0.1, 45).steps == 4


@pytest.mark.parametrize(
    ("native", "multiple", "least"), [(96, 8, 96), (127, 8, 127), (128, 8, 64), (144, 48, 144)]
)
def test_sizes_below_two_multiples_are_kept(native: int, multiple: int, least: int) -> None:
    found = time_budget.smallest(ImageSize(width=native, height=native + 8), multiple)
    assert (found.width, found.height) == (least, native + 8 if least == native else 64)


def test_wide_images_stay_wide() -> None:
    size = time_budget.fit(ImageSize(width=1024, height=512), 8, 20, 60, 45).size
    assert (size.width, size.height) == (512, 256)


def test_a_smoke_test_with_little_time_makes_fewer_steps_and_says_so(tmp_path: Path) -> None:
    events: list[Event] = []
    pipeline = pipeline_of(toy_package.write(tmp_path / "toy"), listener=events.append)
    (outcome,) = smoke_test(pipeline, (Trial(prompt="a horse", seed=1),), steps=20, limit_seconds=1e-9)
    assert outcome.request.steps == 8
    assert outcome.faults == ()
    (said,) = [event.text for event in events if isinstance(event, Notice) and "no GPU" in event.text]
    assert "8 steps" in said
    assert "64x64 and 20" in said


def test_with_time_enough_nothing_is_left_out(tmp_path: Path) -> None:
    events: list[Event] = []
    pipeline = pipeline_of(toy_package.write(tmp_path / "toy"), listener=events.append)
    (outcome,) = smoke_test(pipeline, (Trial(prompt="a horse", seed=1),), steps=5, limit_seconds=1e9)
    assert outcome.request.steps == 5
    assert not [event for event in events if isinstance(event, Notice)]

"""Which step a command is at, and how long the rest takes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from conversions.checkpoint.folder import open_folder
from conversions.events import Step
from conversions.options import Options
from conversions.plan import make_plan
from sdsetup.steps import StepClock, conversion_steps

STEPS = tuple(
    Step(label=label, tasks=frozenset(tasks), seconds=seconds)
    for label, tasks, seconds in (
        ("tracing", {"trace"}, 10),
        ("writing", {"unet", "vae"}, 20),
        ("checking", {"files", "run"}, 30),
    )
)


def test_the_rest_is_judged_by_the_pace_so_far() -> None:
    clock = StepClock(steps=STEPS)
    assert clock.text(100.0) == ""
    clock.start("trace unet", 100.0)
    assert clock.text(105.0) == "step 1 of 3: tracing"
    clock.start("unet", 140.0)  # 40 seconds where 10 are usual, and 20 for a machine like any: twice as long
    assert clock.text(140.0) == "step 2 of 3: writing, about 2 min left"
    assert clock.seconds_left(150.0) == 90.0
    assert clock.seconds_left(1000.0) == 60.0  # longer than thought: what comes after is still to do
    clock.start("vae", 150.0)
    assert clock.title == "step 2 of 3: writing"
    clock.start("run unet", 160.0)  # in all 60 seconds where 30 are usual
    assert clock.seconds_left(160.0) == 30 * (60 + 20) / (30 + 20)


def test_a_short_step_that_a_busy_machine_holds_up_does_not_make_minutes_of_the_rest() -> None:
    steps = (replace(STEPS[1], seconds=1.0), replace(STEPS[2], seconds=30.0))
    clock = StepClock(steps=steps)
    clock.start("unet", 0.0)
    clock.start("run unet", 5.0)  # five times as long as usual
    left = clock.seconds_left(5.0)
    assert left is not None
    assert 30 < left < 45


def test_what_a_line_or_a_step_that_was_not_needed_took_tells_no_pace() -> None:
    download = Step(label="downloading", tasks=frozenset({"download"}), seconds=10, tells_pace=False)
    clock = StepClock(steps=(download, *STEPS))
    clock.start("download", 0.0)
    clock.start("unet", 1000.0)  # tracing is passed over
    assert clock.seconds_left(1000.0) is None
    clock.start("run unet", 1020.0)
    assert clock.seconds_left(1020.0) == 30.0


def test_a_step_that_is_not_needed_is_passed_over_and_none_comes_back() -> None:
    clock = StepClock(steps=STEPS)
    clock.start("run unet", 1.0)
    assert clock.title == "step 3 of 3: checking"
    clock.start("trace vae", 2.0)
    assert clock.title == "step 3 of 3: checking"


@pytest.mark.torch
def test_a_conversion_has_the_steps_that_its_tasks_belong_to(tiny_checkpoint: Path, tmp_path: Path) -> None:
    plan = make_plan(open_folder(tiny_checkpoint), Options(target="cpu"), tmp_path)
    every = conversion_steps(plan, download_bytes=10**6, verify=True, image=True)
    assert [step.label for step in every] == [
        *(
            "downloading",
            "tracing graphs",
            "writing weights",
            "computing the reference",
            "checking the package",
        ),
        "making the first image",
    ]
    assert [step.label for step in every if not step.tells_pace] == ["downloading"]
    assert every[2].tasks == {part.name for part in plan.components}
    few = conversion_steps(plan, download_bytes=0, verify=False, image=False)
    assert [step.label for step in few] == ["tracing graphs", "writing weights"]

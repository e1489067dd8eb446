"""What an event says when nothing else was said."""

from __future__ import annotations

from conversions.events import Finished, Started, Step


def test_a_task_of_unknown_length_counts_steps_and_ends_without_a_note() -> None:
    started = Started(task="unet", label="unet: tracing")
    assert (started.total, started.unit) == (None, "steps")
    assert Finished(task="unet").note == ""


def test_a_step_tells_the_pace_of_the_machine_unless_it_says_otherwise() -> None:
    step = Step(label="writing weights", tasks=frozenset({"weights"}), seconds=3.0)
    assert step.tells_pace is True

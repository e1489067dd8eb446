"""What is recorded of a run: events, and the memory of this process and its children."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import psutil
import pytest

from conversions.events import Advanced, Event, Finished, Notice, Started, Stopped
from sdsetup.report_page import record
from sdsetup.report_page.record import RunRecord, Task, recording

TOKEN = "hf_ABCDEFGHIJKLMNOPQRSTUVWXYZ"  # noqa: S105


def test_what_was_not_recorded_is_nothing() -> None:
    assert RunRecord(started=3.0) == RunRecord(started=3.0, seconds=0.0, tasks=[], notices=[], memory=[])
    assert RunRecord(started=3.0).peak_bytes == 0
    assert Task(label="a", began=1.0) == Task(label="a", began=1.0, ended=None, note="")


def test_tasks_are_recorded_with_their_times_and_without_secrets() -> None:
    seen: list[Event] = []
    before = time.time()
    events = [
        Started(task="a", label=f"one {TOKEN}"),
        Advanced(task="a", done=1),
        Started(task="b", label="two"),
        Finished(task="a", note=f"good {TOKEN}"),
        Finished(task="nobody's", note="x"),
        Finished(task="a", note="again"),
        Notice(text=f"said {TOKEN}"),
    ]
    with recording(seen.append) as (listener, made):
        for event in events:
            listener(event)
    assert seen == events
    first, second = made.tasks
    assert (first.label, first.note) == ("one <hidden>", "good <hidden>")
    assert (second.label, second.note, second.ended) == ("two", "", None)
    assert first.ended is not None
    assert 0 <= first.began <= second.began <= first.ended <= made.seconds
    assert made.seconds < time.time() - before + 1
    assert before <= made.started <= time.time()
    assert made.notices == ["said <hidden>"]
    assert made.memory
    moment, size = made.memory[0]
    assert 0 <= moment <= made.seconds
    assert size > 10**6


def test_a_task_that_stopped_has_an_end() -> None:
    with recording(lambda _: None) as (listener, made):
        for event in (Started(task="a", label="one"), Stopped(task="a"), Stopped(task="nobody's")):
            listener(event)
    (task,) = made.tasks
    assert task.ended is not None
    assert task.note == "stopped"


NESTED = """
import subprocess, sys
if sys.argv[1:]:
    held = b"x" * 100_000_000
    print("held", flush=True)
    sys.stdin.readline()
else:
    subprocess.run([sys.executable, __file__, "again"])
"""


def test_the_memory_of_children_and_theirs_counts(tmp_path) -> None:
    script = tmp_path / "nested.py"
    script.write_text(NESTED, "utf-8")
    alone = record._resident(psutil.Process())
    with subprocess.Popen(
        [sys.executable, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        together = record._resident(psutil.Process())
        child.communicate("\n")
    assert together > alone + 100_000_000


def test_a_long_run_keeps_every_second_sample_the_larger_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "_EVERY_SECONDS", 0.0)
    monkeypatch.setattr(record, "_MOST_SAMPLES", 4)
    sizes = [7, 5, 1, 2, 9, 3, 4]
    over = threading.Event()

    def resident(_: object) -> int:
        if len(sizes) == 1:
            over.set()
        return sizes.pop(0)

    monkeypatch.setattr(record, "_resident", resident)
    made = RunRecord(started=0.0)
    record._sample(made, time.monotonic(), over)
    # Five samples are halved, the last without a partner is dropped; two more come.
    assert [size for _, size in made.memory] == [7, 2, 3, 4]
    assert made.peak_bytes == 7

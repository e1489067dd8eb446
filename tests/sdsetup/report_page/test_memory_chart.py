"""The chart of memory: its scale, its line, its bars, point by point."""

from __future__ import annotations

import re

import pytest

from sdsetup.report_page.memory_chart import PHONE, draw
from sdsetup.report_page.record import RunRecord, Task

MIB = 2**20


def record(*tasks: Task, seconds: float = 10.0) -> RunRecord:
    memory = [(0.0, 100 * MIB), (5.0, 512 * MIB), (seconds + 1, 0)]
    return RunRecord(started=0.0, seconds=seconds, tasks=list(tasks), memory=memory)


def test_a_line_goes_from_sample_to_sample_over_an_area() -> None:
    drawn = draw(record())
    assert drawn.startswith('<svg class="desk" viewBox="0 0 720 210" role="img"')
    assert drawn.endswith("\n</svg>")
    line = "62.0,140.8 385.0,12.0 708.0,172.0"
    assert f'<polyline class="line" points="{line}"/>' in drawn
    assert f'<polygon class="area" points="{line} 708.0,172.0 62.0,172.0"/>' in drawn
    assert "planned" not in drawn
    assert "Memory peaks at 512.0 MiB in a run of 10 seconds" in drawn


def test_levels_are_quarters_of_a_round_size() -> None:
    drawn = draw(record())
    levels = re.findall(r'<line class="grid" x1="62" x2="708" y1="([\d.]+)" y2="([\d.]+)"/>', drawn)
    assert levels == [(y, y) for y in ("172.0", "132.0", "92.0", "52.0", "12.0")]
    sizes = re.findall(r'<text x="56" y="([\d.]+)" text-anchor="end">([^<]+)</text>', drawn)
    assert sizes == [
        ("176.0", "0"),
        ("136.0", "128 MiB"),
        ("96.0", "256 MiB"),
        ("56.0", "384 MiB"),
        ("16.0", "512 MiB"),
    ]


def test_what_was_planned_is_a_line_and_stretches_the_scale() -> None:
    drawn = draw(record(), 1000 * MIB)
    assert '<line class="planned" x1="62" x2="708" y1="15.8" y2="15.8"/>' in drawn
    assert '<text x="708" y="11.8" text-anchor="end">planned</text>' in drawn
    sizes = re.findall(r'<text x="56"[^>]*>([^<]+)</text>', drawn)
    assert sizes == ["0", "0.25 GiB", "0.5 GiB", "0.75 GiB", "1 GiB"]  # all in one unit


@pytest.mark.parametrize(
    ("seconds", "ticks"),
    [
        (0.4, ["0 s"]),
        (4, ["0 s", "0.5 s", "1 s", "1.5 s", "2 s", "2.5 s", "3 s", "3.5 s", "4 s"]),
        (4.5, ["0 s", "1 s", "2 s", "3 s", "4 s"]),
        (17, ["0 s", "5 s", "10 s", "15 s"]),
        (800, [f"{each} s" for each in range(0, 800, 120)]),
        (4801, [f"{each} s" for each in range(0, 4801, 1800)]),
        (4000, [f"{each} s" for each in range(0, 4000, 600)]),
        (36000, [f"{each} s" for each in range(0, 36001, 3600)]),
    ],
)
def test_seconds_are_marked_at_eight_places_at_most(seconds: float, ticks: list[str]) -> None:
    drawn = draw(record(seconds=seconds))
    found = re.findall(r'<text x="([\d.]+)" y="190" text-anchor="middle">([^<]+)</text>', drawn)
    assert [text for _, text in found] == ticks
    places = [62 + 646 * float(text.split()[0]) / seconds for text in ticks]
    assert [float(x) for x, _ in found] == pytest.approx(places, abs=0.06)


def test_tasks_are_bars_with_their_names_beside_them() -> None:
    drawn = draw(
        record(
            Task(label="first <a>", began=0.0, ended=5.0),
            Task(label="too short", began=1.0, ended=1.04),
            Task(label="x" * 50, began=9.0),
            Task(label="y" * 46, began=2.0, ended=2.1),
        )
    )
    assert 'viewBox="0 0 720 264"' in drawn
    bars = re.findall(
        r'<rect class="task" x="([\d.]+)" y="([\d.]+)" width="([\d.]+)" height="12" rx="2"/>', drawn
    )
    assert bars == [("62.0", "206.0", "323.0"), ("643.4", "224.0", "64.6"), ("191.2", "242.0", "6.5")]
    assert '<text x="390.0" y="216.0">first &lt;a&gt;</text>' in drawn
    assert f'<text x="638.4" y="234.0" text-anchor="end">{"x" * 45}…</text>' in drawn
    assert f">{'y' * 46}</text>" in drawn
    assert "too short" not in drawn


def test_on_a_phone_names_stand_above_the_bars_and_fewer_moments_are_marked() -> None:
    drawn = draw(record(Task(label="first", began=0.0, ended=5.0), Task(label="x" * 46, began=9.0)), 0, PHONE)
    assert drawn.startswith('<svg class="phone" viewBox="0 0 350 274" role="img"')
    bars = re.findall(r'<rect class="task" x="([\d.]+)" y="([\d.]+)" width="([\d.]+)"', drawn)
    assert bars == [("62.0", "219.0", "138.0"), ("310.4", "251.0", "27.6")]
    assert '<text x="8" y="215.0">first</text>' in drawn
    assert f'<text x="8" y="247.0">{"x" * 46}</text>' in drawn
    assert re.findall(r">([\d.]+ s)<", drawn) == ["0 s", "5 s", "10 s"]


def test_a_bar_is_wide_enough_to_be_seen() -> None:
    drawn = draw(record(Task(label="a", began=1.0, ended=1.1), seconds=1000.0))
    assert 'width="2.0" height="12"' in drawn


def test_without_two_samples_there_is_nothing_to_draw() -> None:
    one = RunRecord(started=0.0, seconds=3.0, memory=[(0.0, 1)])
    assert draw(one) == ""
    assert draw(RunRecord(started=0.0, seconds=0.0, memory=[(0.0, 1), (1.0, 1)])) == ""
    small = RunRecord(started=0.0, seconds=2.0, memory=[(0.0, 1), (2.0, 3)])
    assert ">1 MiB<" in draw(small)

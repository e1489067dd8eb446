"""Draw memory over time as inline SVG, with the tasks of the run below it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from html import escape

from sdsetup.disk_space import human_size
from sdsetup.report_page.facts import without_person
from sdsetup.report_page.record import RunRecord, Task

_PLOT_HEIGHT, _LEFT, _RIGHT, _TOP = 160, 62, 12, 12
_LONGEST_LABEL = 46
# What took less is too short for a bar or a row of its own.
SHORTEST_SECONDS = 0.05


@dataclass(frozen=True, kw_only=True)
class Shape:
    """How wide a chart is drawn.

    Attributes:
        name: Its class in the page, which shows the one that fits.
        width: Of the chart, in its own units: pixels where it is shown at its size.
        row: Height of a task's row.
        most_ticks: How many moments are marked at most.
        label_above: Whether a task's name stands above its bar; beside it there is no room on a phone.
    """

    name: str
    width: int
    row: int
    most_ticks: int
    label_above: bool


DESK = Shape(name="desk", width=720, row=18, most_ticks=8, label_above=False)
PHONE = Shape(name="phone", width=350, row=32, most_ticks=4, label_above=True)


def draw(record: RunRecord, planned_bytes: int = 0, shape: Shape = DESK) -> str:
    """Return the chart; empty where nothing was sampled.

    Args:
        record: The run.
        planned_bytes: Peak memory that was planned, drawn as a line; 0 for none.
        shape: For which screen.
    """
    if len(record.memory) < 2 or record.seconds <= 0:
        return ""
    top = _round_up(max(record.peak_bytes, planned_bytes))
    inner = shape.width - _LEFT - _RIGHT

    def x(seconds: float) -> float:
        return _LEFT + inner * min(max(seconds / record.seconds, 0.0), 1.0)

    def y(size: float) -> float:
        return _TOP + _PLOT_HEIGHT * (1 - size / top)

    tasks = [task for task in record.tasks if not is_short(task, record)]
    height = _TOP + _PLOT_HEIGHT + 34 + shape.row * len(tasks) + 4
    title, text = f"{shape.name}-title", f"{shape.name}-text"
    box = f'class="{shape.name}" viewBox="0 0 {shape.width} {height}"'
    parts = [
        f'<svg {box} role="img" aria-labelledby="{title} {text}">',
        f'<title id="{title}">Memory and tasks over time</title>',
        f'<desc id="{text}">{_described(record)}</desc>',
    ]
    end = shape.width - _RIGHT
    across = f'x1="{_LEFT}" x2="{end}"'
    for part in range(5):
        level = top * part / 4
        parts.append(f'<line class="grid" {across} y1="{y(level):.1f}" y2="{y(level):.1f}"/>')
        parts.append(
            f'<text x="{_LEFT - 6}" y="{y(level) + 4:.1f}" text-anchor="end">{_level(level, top)}</text>'
        )
    below = _TOP + _PLOT_HEIGHT + 18
    parts += [
        f'<text x="{x(seconds):.1f}" y="{below}" text-anchor="middle">{seconds:g} s</text>'
        for seconds in _ticks(record.seconds, shape.most_ticks)
    ]
    line = " ".join(f"{x(seconds):.1f},{y(size):.1f}" for seconds, size in record.memory)
    foot = f"{x(record.memory[-1][0]):.1f},{y(0):.1f} {x(record.memory[0][0]):.1f},{y(0):.1f}"
    parts.append(f'<polygon class="area" points="{line} {foot}"/>')
    parts.append(f'<polyline class="line" points="{line}"/>')
    if planned_bytes:
        parts.append(
            f'<line class="planned" {across} y1="{y(planned_bytes):.1f}" y2="{y(planned_bytes):.1f}"/>'
            f'<text x="{end}" y="{y(planned_bytes) - 4:.1f}" text-anchor="end">planned</text>'
        )
    for row, task in enumerate(tasks):
        parts += _bar(task, _TOP + _PLOT_HEIGHT + 34 + shape.row * row, x, record.seconds, shape)
    return "\n".join((*parts, "</svg>"))


def is_short(task: Task, record: RunRecord) -> bool:
    """Tell whether a task ended too soon to be shown by itself."""
    return (record.seconds if task.ended is None else task.ended) - task.began < SHORTEST_SECONDS


def _described(record: RunRecord) -> str:
    return (
        f"Memory peaks at {human_size(record.peak_bytes)} in a run of {record.seconds:.0f} seconds; "
        "the tasks are listed with their times in the table."
    )


def _bar(task: Task, y: float, x: Callable[[float], float], end: float, shape: Shape) -> Iterator[str]:
    left, right = x(task.began), x(task.ended if task.ended is not None else end)
    width = max(right - left, 2)
    top = y + 13 if shape.label_above else y
    yield f'<rect class="task" x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" height="12" rx="2"/>'
    label = without_person(task.label)
    label = label if len(label) <= _LONGEST_LABEL else f"{label[: _LONGEST_LABEL - 1]}…"
    if shape.label_above:
        yield f'<text x="8" y="{y + 9:.1f}">{escape(label)}</text>'
    elif right < shape.width * 0.55:
        yield f'<text x="{right + 5:.1f}" y="{y + 10:.1f}">{escape(label)}</text>'
    else:
        yield f'<text x="{left - 5:.1f}" y="{y + 10:.1f}" text-anchor="end">{escape(label)}</text>'


def _level(size: float, top: float) -> str:
    """Write a level of the scale in the unit of its highest one, so that they compare at a glance."""
    if not size:
        return "0"
    unit, name = (2.0**30, "GiB") if top >= 2**30 else (2.0**20, "MiB")
    return f"{size / unit:g} {name}"


def _round_up(size: int) -> float:
    """Return the next 1, 2, 4 or 8 times a power of two MiB, so that quarters of it are round."""
    return 2.0 ** math.ceil(math.log2(max(size, 1 << 20)))


def _ticks(seconds: float, most: int) -> Iterator[float]:
    steps = (0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800)
    step = next((each for each in steps if seconds / each <= most), 3600)
    moment = 0.0
    while moment <= seconds:
        yield moment
        moment += step

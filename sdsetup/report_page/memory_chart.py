"""Draw memory over time as inline SVG, with the tasks of the run below it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from html import escape

from sdsetup.disk_space import human_size
from sdsetup.report_page.facts import without_person
from sdsetup.report_page.record import RunRecord, Task

_WIDTH, _PLOT_HEIGHT, _LEFT, _RIGHT, _TOP = 720, 160, 62, 12, 12
_ROW = 18
_LONGEST_LABEL = 46


def draw(record: RunRecord, planned_bytes: int = 0) -> str:
    """Return the chart; empty where nothing was sampled.

    Args:
        record: The run.
        planned_bytes: Peak memory that was planned, drawn as a line; 0 for none.
    """
    if len(record.memory) < 2 or record.seconds <= 0:
        return ""
    top = _round_up(max(record.peak_bytes, planned_bytes))
    inner = _WIDTH - _LEFT - _RIGHT

    def x(seconds: float) -> float:
        return _LEFT + inner * min(max(seconds / record.seconds, 0.0), 1.0)

    def y(size: float) -> float:
        return _TOP + _PLOT_HEIGHT * (1 - size / top)

    tasks = [task for task in record.tasks if (task.ended or record.seconds) - task.began >= 0.05]
    height = _TOP + _PLOT_HEIGHT + 34 + _ROW * len(tasks) + 4
    parts = [
        f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-labelledby="chart-title chart-text">',
        '<title id="chart-title">Memory and tasks over time</title>',
        f'<desc id="chart-text">{_described(record)}</desc>',
    ]
    across = f'x1="{_LEFT}" x2="{_WIDTH - _RIGHT}"'
    for part in range(5):
        level = top * part / 4
        parts.append(f'<line class="grid" {across} y1="{y(level):.1f}" y2="{y(level):.1f}"/>')
        parts.append(
            f'<text x="{_LEFT - 6}" y="{y(level) + 4:.1f}" text-anchor="end">{_level(level, top)}</text>'
        )
    below = _TOP + _PLOT_HEIGHT + 18
    parts += [
        f'<text x="{x(seconds):.1f}" y="{below}" text-anchor="middle">{seconds:g} s</text>'
        for seconds in _ticks(record.seconds)
    ]
    line = " ".join(f"{x(seconds):.1f},{y(size):.1f}" for seconds, size in record.memory)
    foot = f"{x(record.memory[-1][0]):.1f},{y(0):.1f} {x(record.memory[0][0]):.1f},{y(0):.1f}"
    parts.append(f'<polygon class="area" points="{line} {foot}"/>')
    parts.append(f'<polyline class="line" points="{line}"/>')
    if planned_bytes:
        parts.append(
            f'<line class="planned" {across} y1="{y(planned_bytes):.1f}" y2="{y(planned_bytes):.1f}"/>'
            f'<text x="{_WIDTH - _RIGHT}" y="{y(planned_bytes) - 4:.1f}" text-anchor="end">planned</text>'
        )
    for row, task in enumerate(tasks):
        parts += _bar(task, _TOP + _PLOT_HEIGHT + 34 + _ROW * row, x, record.seconds)
    return "\n".join((*parts, "</svg>"))


def _described(record: RunRecord) -> str:
    return (
        f"Memory peaks at {human_size(record.peak_bytes)} in a run of {record.seconds:.0f} seconds; "
        "the tasks are listed with their times in the table."
    )


def _bar(task: Task, y: float, x: Callable[[float], float], end: float) -> Iterator[str]:
    left, right = x(task.began), x(task.ended if task.ended is not None else end)
    width = max(right - left, 2)
    yield f'<rect class="task" x="{left:.1f}" y="{y:.1f}" width="{width:.1f}" height="12" rx="2"/>'
    label = without_person(task.label)
    label = label if len(label) <= _LONGEST_LABEL else f"{label[: _LONGEST_LABEL - 1]}…"
    if right < _WIDTH * 0.55:
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


def _ticks(seconds: float) -> Iterator[float]:
    step = next(
        (each for each in (0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800) if seconds / each <= 8), 3600
    )
    moment = 0.0
    while moment <= seconds:
        yield moment
        moment += step

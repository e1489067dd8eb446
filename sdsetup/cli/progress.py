"""Progress events of the libraries, shown as bars on a terminal and as lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rich.console import RenderableType
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.text import Text

from conversions.events import Advanced, Event, Finished, Listener, Notice, Planned, Started, Stopped
from sdsetup.cli import output
from sdsetup.redaction import redact
from sdsetup.steps import StepClock


class _AmountColumn(ProgressColumn):
    """Bytes with their rate, or a plain count, as the task's unit asks."""

    def __init__(self) -> None:
        super().__init__()
        self._bytes = (DownloadColumn(binary_units=True), TransferSpeedColumn())
        self._count = MofNCompleteColumn()

    def render(self, task: Task) -> Text:
        if task.total is None:
            return Text("")
        if task.fields["unit"] == "bytes":
            return Text(" ").join(column.render(task) for column in self._bytes)
        return Text(f"{self._count.render(task)} {task.fields['unit']}")


@dataclass
class _Overall:
    """Where a command of several steps is; nothing while it has none."""

    clock: StepClock | None = None


class _StepProgress(Progress):
    """Bars of tasks below a line that tells the step of the whole."""

    def __init__(self, *columns: ProgressColumn, overall: _Overall, **options: Any) -> None:
        self._overall = overall
        super().__init__(*columns, **options)

    def get_renderables(self) -> Iterable[RenderableType]:
        clock = self._overall.clock
        if clock is not None and (text := clock.text(time.monotonic())):
            yield Text(text, style="bold")
        yield from super().get_renderables()


@contextmanager
def listening() -> Iterator[Listener]:
    """Show progress on stderr while the block runs.

    Yields:
        A listener to hand to the libraries; safe to call from several threads.
    """
    overall = _Overall()
    progress = _StepProgress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        _AmountColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=output.console(),
        transient=True,
        disable=not output.console().is_terminal,
        overall=overall,
    )
    with output.living(progress):
        tasks: dict[str, tuple[TaskID, str]] = {}

        def remove(name: str) -> None:
            if name in tasks:
                progress.remove_task(tasks.pop(name)[0])

        def listener(event: Event) -> None:
            match event:
                case Planned(steps=steps):
                    overall.clock = StepClock(steps=steps)
                case Started(task=name, label=label, total=total, unit=unit):
                    if overall.clock is not None:
                        overall.clock.start(name, time.monotonic())
                    remove(name)  # of a process that was lost with its task
                    tasks[name] = (progress.add_task(escape(redact(label)), total=total, unit=unit), label)
                case Advanced(task=name, done=done):
                    progress.update(tasks[name][0], completed=done)
                case Finished(task=name, note=note):
                    task_id, label = tasks.pop(name)
                    seconds = progress.tasks[progress.task_ids.index(task_id)].elapsed or 0.0
                    progress.remove_task(task_id)
                    output.say(f"  {label}{': ' if note else ''}{note} ({seconds:.1f} s)")
                case Stopped(task=name):
                    remove(name)
                case Notice(text=text):
                    output.say(text)

        yield listener

"""Progress events of the libraries, shown as bars on a terminal and as lines elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

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

from conversions.events import Advanced, Event, Finished, Listener, Notice, Started
from sdsetup.cli import output
from sdsetup.redaction import redact


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


@contextmanager
def listening() -> Iterator[Listener]:
    """Show progress on stderr while the block runs.

    Yields:
        A listener to hand to the libraries; safe to call from several threads.
    """
    with Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        _AmountColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=output.console(),
        transient=True,
        disable=not output.console().is_terminal,
    ) as progress:
        tasks: dict[str, tuple[TaskID, str]] = {}

        def listener(event: Event) -> None:
            match event:
                case Started(task=name, label=label, total=total, unit=unit):
                    tasks[name] = (progress.add_task(escape(redact(label)), total=total, unit=unit), label)
                case Advanced(task=name, done=done):
                    progress.update(tasks[name][0], completed=done)
                case Finished(task=name, note=note):
                    task_id, label = tasks.pop(name)
                    seconds = progress.tasks[progress.task_ids.index(task_id)].elapsed or 0.0
                    progress.remove_task(task_id)
                    output.say(f"  {label}{': ' if note else ''}{note} ({seconds:.1f} s)")
                case Notice(text=text):
                    output.say(text)

        yield listener

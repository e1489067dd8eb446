"""Record a run while it goes: its tasks with their times, what was said, and the memory it took."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import psutil

from conversions.events import Event, Finished, Listener, Notice, Started, Stopped
from sdsetup.redaction import redact

_EVERY_SECONDS = 0.25
_MOST_SAMPLES = 2000


@dataclass(kw_only=True)
class Task:
    """One task of a run.

    Attributes:
        label: What a person read.
        began: Seconds since the run's start.
        ended: The same; None while it runs, and for one that was interrupted.
        note: Its short result, or empty.
    """

    label: str
    began: float
    ended: float | None = None
    note: str = ""


@dataclass(kw_only=True)
class RunRecord:
    """What a run did.

    Attributes:
        started: Wall clock of its start, seconds since 1970.
        seconds: How long it took.
        tasks: Its tasks, in the order in which they began.
        notices: What was said besides.
        memory: Samples of seconds since the start, and resident bytes of this process and its children.
    """

    started: float
    seconds: float = 0.0
    tasks: list[Task] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    memory: list[tuple[float, int]] = field(default_factory=list)

    @property
    def peak_bytes(self) -> int:
        """Largest sample of memory; 0 when there is none."""
        return max((size for _, size in self.memory), default=0)


@contextmanager
def recording(shown: Listener) -> Iterator[tuple[Listener, RunRecord]]:
    """Record while the block runs.

    Args:
        shown: Is told every event too.

    Yields:
        A listener to hand to the libraries, safe to call from several threads; and what it records.
    """
    began = time.monotonic()
    record = RunRecord(started=time.time())
    running: dict[str, Task] = {}

    def listener(event: Event) -> None:
        now = time.monotonic() - began
        match event:
            case Started(task=name, label=label):
                running[name] = Task(label=redact(label), began=now)
                record.tasks.append(running[name])
            case Finished(task=name, note=note) if name in running:
                task = running.pop(name)
                task.ended, task.note = now, redact(note)
            case Stopped(task=name) if name in running:
                task = running.pop(name)
                task.ended, task.note = now, "stopped"
            case Notice(text=text):
                record.notices.append(redact(text))
        shown(event)

    over = threading.Event()
    sampler = threading.Thread(target=_sample, args=(record, began, over), daemon=True)
    sampler.start()
    try:
        yield listener, record
    finally:
        over.set()
        sampler.join()
        record.seconds = time.monotonic() - began


def _sample(record: RunRecord, began: float, over: threading.Event) -> None:
    pause = _EVERY_SECONDS
    process = psutil.Process()
    while True:
        record.memory.append((time.monotonic() - began, _resident(process)))
        if len(record.memory) > _MOST_SAMPLES:  # a long run: every second sample, the larger of each two
            pairs = zip(record.memory[::2], record.memory[1::2], strict=False)
            record.memory[:] = [max(pair, key=lambda sample: sample[1]) for pair in pairs]
            pause *= 2
        if over.wait(pause):
            return


def _resident(process: psutil.Process) -> int:
    total = 0
    with suppress(psutil.Error):
        for each in (process, *process.children(recursive=True)):
            with suppress(psutil.Error):
                total += each.memory_info().rss
    return total

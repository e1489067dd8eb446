"""Progress events: the library reports what it does, listeners decide how to show it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

Unit = Literal["bytes", "steps", "nodes", "submodels", "files", "images", "tiles"]


@dataclass(frozen=True, kw_only=True)
class Started:
    """A task has started.

    Attributes:
        task: Identifier, unique among the tasks that run at the same time.
        label: What a person reads, for example ``"safety_checker: writing weights"``.
        total: How much work there is, in ``unit``; None when that is unknown.
        unit: What is counted.
    """

    task: str
    label: str
    total: int | None = None
    unit: Unit = "steps"


@dataclass(frozen=True, kw_only=True)
class Advanced:
    """Progress of a task: ``done`` units are finished, counted from its start."""

    task: str
    done: int


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A task has ended; ``note`` is a short result to show, or empty."""

    task: str
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Stopped:
    """A task has ended without a result: it failed, and the error or what is tried next tells of it."""

    task: str


@dataclass(frozen=True, kw_only=True)
class Notice:
    """A message for the user; nothing failed."""

    text: str


@dataclass(frozen=True, kw_only=True)
class Step:
    """A part of a long command.

    Attributes:
        label: What a person reads, for example ``"writing weights"``.
        tasks: First words of the identifiers of the tasks in it.
        seconds: How long it usually takes.
        tells_pace: Whether how long it took tells how fast this machine is; a download does not.
    """

    label: str
    tasks: frozenset[str]
    seconds: float
    tells_pace: bool = True


@dataclass(frozen=True, kw_only=True)
class Planned:
    """The steps of a long command, in their order; one whose tasks are not needed is passed over."""

    steps: tuple[Step, ...]


Event = Started | Advanced | Finished | Stopped | Notice | Planned
Listener = Callable[[Event], None]


@contextmanager
def underway(listener: Listener, started: Started) -> Iterator[None]:
    """Report a task that begins with the block, and has stopped where the block fails.

    Who calls it reports that it has finished.
    """
    listener(started)
    try:
        yield
    except BaseException:  # Ctrl-C too: whatever ends the block leaves no task behind
        listener(Stopped(task=started.task))
        raise


def ignore(event: Event) -> None:
    """Discard events, for callers that want no progress."""

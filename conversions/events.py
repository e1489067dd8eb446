"""Progress events: the library reports what it does, listeners decide how to show it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Unit = Literal["bytes", "steps", "nodes", "submodels", "files", "images"]


@dataclass(frozen=True, kw_only=True)
class Started:
    """A task has started.

    Attributes:
        task: Identifier, unique among the tasks that run at the same time.
        label: What a person reads, for example ``"transformer: writing weights"``.
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
class Notice:
    """A message for the user; nothing failed."""

    text: str


Event = Started | Advanced | Finished | Notice
Listener = Callable[[Event], None]


def ignore(event: Event) -> None:
    """Discard events, for callers that want no progress."""

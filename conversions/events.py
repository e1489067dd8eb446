"""Progress as plain values: the library tells what it does, listeners decide how to show it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Unit = Literal["bytes", "steps", "nodes", "submodels", "files", "images"]


@dataclass(frozen=True, kw_only=True)
class Started:
    """Work on ``task`` begins.

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
    """``done`` units of ``task`` are finished, counted from its start."""

    task: str
    done: int


@dataclass(frozen=True, kw_only=True)
class Finished:
    """``task`` is over; ``note`` is a short result worth reading, or empty."""

    task: str
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Notice:
    """Something the user should know although nothing failed."""

    text: str


Event = Started | Advanced | Finished | Notice
Listener = Callable[[Event], None]


def ignore(event: Event) -> None:
    """Be the listener of callers who want no progress."""

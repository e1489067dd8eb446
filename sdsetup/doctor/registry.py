"""The checks: functions of the facts, registered under their finding's id."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from sdsetup.doctor.finding import Verdict
from sdsetup.doctor.purpose import Kind, Purpose
from sdsetup.machine.adapters.adapter import Adapter
from sdsetup.machine.facts import (
    Environment,
    Folder,
    Hub,
    Imports,
    Machine,
    Packages,
    Plan,
    Python,
    Runtime,
    Tools,
)

_T = TypeVar("_T")


class NotReadError(Exception):
    """A fact that a check wants was not read; ``args[0]`` is its field."""


@dataclass(frozen=True, kw_only=True)
class CheckContext:
    """What a check may look at: the facts and the purpose. A fact that was not read raises NotReadError."""

    environment: Environment
    purpose: Purpose

    @property
    def machine(self) -> Machine:
        """The computer and its operating system."""
        return _read(self.environment.machine, "machine")

    @property
    def python(self) -> Python:
        """The interpreter."""
        return _read(self.environment.python, "python")

    @property
    def adapters(self) -> tuple[Adapter, ...]:
        """The graphics adapters."""
        return _read(self.environment.adapters, "adapters")

    @property
    def packages(self) -> Packages:
        """The installed distributions."""
        return _read(self.environment.packages, "packages")

    @property
    def imports(self) -> Imports:
        """What could not be imported."""
        return _read(self.environment.imports, "imports")

    @property
    def runtime(self) -> Runtime:
        """ONNX Runtime as it works here."""
        return _read(self.environment.runtime, "runtime")

    @property
    def tools(self) -> Tools:
        """Programs found by name."""
        return _read(self.environment.tools, "tools")

    @property
    def hub(self) -> Hub:
        """What the hub answers."""
        return _read(self.environment.hub, "hub")

    @property
    def plan(self) -> Plan:
        """The plan of the conversion asked about."""
        return _read(self.environment.plan, "plan")

    @property
    def folders(self) -> tuple[Folder, ...]:
        """Every place that is written to."""
        return _read(self.environment.folders, "folders")

    def folder(self, role: str) -> Folder:
        """One place that is written to."""
        for folder in self.folders:
            if folder.role == role:
                return folder
        raise NotReadError("folders")


def _read(value: _T | None, field: str) -> _T:
    if value is None:
        raise NotReadError(field)
    return value


@dataclass(frozen=True, kw_only=True)
class Check:
    """A registered check; ``reads`` names the fields of Environment it looks at."""

    id: str
    title: str
    why: str
    reads: frozenset[str]
    kinds: frozenset[Kind]
    judge: Callable[[CheckContext], Verdict]


_CHECKS: dict[str, Check] = {}
_TOPICS = ("python", "system", "model", "memory", "storage", "adapter", "packages", "runtime", "hub")

ALL_KINDS: frozenset[Kind] = frozenset({"anything", "install", "convert", "generate"})
# What is missing or torn among packages does not stand in the way of `install`, which brings them.
WITH_PACKAGES: frozenset[Kind] = ALL_KINDS - {"install"}


def check(
    finding_id: str, title: str, *, why: str, reads: str, kinds: frozenset[Kind] = ALL_KINDS
) -> Callable[[Callable[[CheckContext], Verdict]], Callable[[CheckContext], Verdict]]:
    """Register a check.

    Args:
        finding_id: Its stable id, ``topic.name``.
        title: What it looks at.
        why: Why that matters, in one line.
        reads: The fields of Environment it looks at, separated by spaces.
        kinds: The purposes it matters for.
    """

    def register(judge: Callable[[CheckContext], Verdict]) -> Callable[[CheckContext], Verdict]:
        if finding_id in _CHECKS:
            raise ValueError(f"two checks are called {finding_id}")
        _CHECKS[finding_id] = Check(
            id=finding_id, title=title, why=why, reads=frozenset(reads.split()), kinds=kinds, judge=judge
        )
        return judge

    return register


def registered() -> tuple[Check, ...]:
    """List the checks registered so far, topic by topic, in the order a person wants to read them."""
    return tuple(sorted(_CHECKS.values(), key=lambda check: _TOPICS.index(check.id.partition(".")[0])))

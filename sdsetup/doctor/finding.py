"""What a check says, and what the doctor makes of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sdsetup.bootstrap.action import InstallAction

Status = Literal["ok", "warning", "failure", "skipped"]

PAGE = "docs/reference/doctor.md"


@dataclass(frozen=True, kw_only=True)
class Fix:
    """How to repair something.

    Attributes:
        says: What to do, in one sentence.
        commands: What to type for that, in the person's own shell; may be empty.
        actions: What ``--fix`` would start; empty when only a person can or may do it.
    """

    says: str
    commands: tuple[str, ...] = ()
    actions: tuple[InstallAction, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """A check's answer: its status, what was seen (with numbers), and the way out."""

    status: Status
    evidence: str
    fix: Fix | None = None


def ok(evidence: str) -> Verdict:
    """All is well."""
    return Verdict(status="ok", evidence=evidence)


def skipped(reason: str) -> Verdict:
    """The question does not arise or cannot be answered here."""
    return Verdict(status="skipped", evidence=reason)


def warning(evidence: str, fix: Fix) -> Verdict:
    """It will work, but worse than it could."""
    return Verdict(status="warning", evidence=evidence, fix=fix)


def failure(evidence: str, fix: Fix) -> Verdict:
    """It will not work."""
    return Verdict(status="failure", evidence=evidence, fix=fix)


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A verdict with the check it comes from.

    Attributes:
        id: Stable, for example ``"runtime.flavours"``; scripts may match on it.
        title: What was looked at.
        why: Why it matters, in one line.
    """

    id: str
    title: str
    why: str
    verdict: Verdict

    @property
    def docs(self) -> str:
        """Where the finding is explained: a page and its anchor."""
        return f"{PAGE}#{anchor(self.id)}"


def anchor(finding_id: str) -> str:
    """Name the anchor that Markdown gives a heading of this id: dots vanish."""
    return finding_id.replace(".", "")

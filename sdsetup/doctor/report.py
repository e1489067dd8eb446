"""The findings as lines for people, as JSON, and as Markdown to paste in an issue."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TextIO

from sdsetup import __version__, redaction
from sdsetup.bootstrap import console
from sdsetup.doctor.finding import Finding, Status
from sdsetup.doctor.purpose import Purpose
from sdsetup.machine.facts import Environment

_ORDER: tuple[Status, ...] = ("failure", "warning", "ok", "skipped")
_MARKS: dict[Status, str] = {
    "ok": "ok     ",
    "warning": "warning",
    "failure": "FAILURE",
    "skipped": "skipped",
}

# Under which column a narrow terminal goes on with a line of the kind.
_HANGS = {"title": 0, "detail": 15}

# Names that belong to a machine, not to a person; hiding them would only blur the report.
_NOBODY = {"root", "user", "admin", "administrator", "runner", "ubuntu", "debian", "localhost", "vm", ""}


@dataclass(frozen=True, kw_only=True)
class Line:
    """A line for people, and what kind of line it is."""

    text: str
    kind: Literal["title", "ok", "warning", "failure", "skipped", "detail", "command"]

    def folded(self, stream: TextIO) -> list[str]:
        """Break the line where ``stream`` is a narrower terminal; a command stays whole, to be copied."""
        if self.kind == "command":
            return [self.text]
        return console.folded(self.text, stream, hang=_HANGS.get(self.kind, 10))


def counts(findings: Sequence[Finding]) -> dict[Status, int]:
    """Count the findings by status."""
    return {status: sum(finding.verdict.status == status for finding in findings) for status in _ORDER}


def exit_status(findings: Sequence[Finding], *, strict: bool) -> int:
    """Say 0 when the machine will do, else 1; ``strict`` counts warnings."""
    found = counts(findings)
    return 1 if found["failure"] or (strict and found["warning"]) else 0


def lines(findings: Sequence[Finding], purpose: Purpose) -> Iterator[Line]:
    """Write the findings for people: all in order, then the verdict."""
    topic = ""
    for finding in findings:
        if finding.id.partition(".")[0] != topic:
            topic = finding.id.partition(".")[0]
            yield Line(text=topic, kind="title")
        verdict = finding.verdict
        yield Line(
            text=f"  {_MARKS[verdict.status]} {finding.title}: {verdict.evidence}", kind=verdict.status
        )
        if verdict.fix is not None:
            yield Line(text=f"          why: {finding.why} [{finding.id}]", kind="detail")
            yield Line(text=f"          fix: {verdict.fix.says}", kind="detail")
            for command in verdict.fix.commands:
                yield Line(text=f"               {command}", kind="command")
    found = counts(findings)
    said = ", ".join(_counted(found[status], status) for status in _ORDER if found[status])
    yield Line(text=f"{verdict_text(findings, purpose)} ({said})", kind="title")


def _counted(number: int, status: Status) -> str:
    plural = "s" if number > 1 and status in {"failure", "warning"} else ""
    return f"{number} {status}{plural}"


def verdict_text(findings: Sequence[Finding], purpose: Purpose) -> str:
    """Say in one sentence whether the machine will do."""
    found = counts(findings)
    what = {
        "anything": "to convert checkpoints and make images",
        "install": "to install sdsetup",
        "convert": f"to convert {purpose.model or 'a checkpoint'}",
        "generate": f"to make images{f' with {purpose.model}' if purpose.model else ''}",
    }[purpose.kind]
    if found["failure"]:
        number = found["failure"]
        things = "one thing stands" if number == 1 else f"{number} things stand"
        named = ", ".join(finding.id for finding in findings if finding.verdict.status == "failure")
        return f"Not ready {what}: {things} in the way: {named}"
    if found["warning"]:
        return f"Ready {what}, but it could be better"
    return f"Ready {what}"


def to_json(findings: Sequence[Finding], environment: Environment, purpose: Purpose) -> dict[str, Any]:
    """Write the findings as a document; ``schema.json`` beside this file describes it."""
    return {
        "schema": 1,
        "sdsetup": __version__,
        "purpose": {"kind": purpose.kind, "model": purpose.model, "basis": purpose.basis},
        "ready": counts(findings)["failure"] == 0,
        "verdict": verdict_text(findings, purpose),
        "counts": counts(findings),
        "seconds": {name: round(value, 3) for name, value in sorted(environment.seconds.items())},
        "findings": [_finding(finding) for finding in findings],
    }


def _finding(finding: Finding) -> dict[str, Any]:
    fix = finding.verdict.fix
    return {
        "id": finding.id,
        "title": finding.title,
        "status": finding.verdict.status,
        "evidence": finding.verdict.evidence,
        "why": finding.why,
        "fix": None
        if fix is None
        else {"says": fix.says, "commands": list(fix.commands), "automatic": bool(fix.actions)},
        "docs": finding.docs,
    }


def to_markdown(findings: Sequence[Finding], environment: Environment, purpose: Purpose) -> str:
    """Write the findings for an issue; who and where the person is stays out."""
    rows = [
        "### sdsetup doctor",
        "",
        f"sdsetup {__version__}. {verdict_text(findings, purpose)}.",
        "",
        "| finding | status | seen |",
        "|---|---|---|",
    ]
    ordered = sorted(findings, key=lambda finding: _ORDER.index(finding.verdict.status))
    rows += [
        f"| {finding.id} | {finding.verdict.status} | {_cell(finding.verdict.evidence)} |"
        for finding in ordered
    ]
    return redact("\n".join(rows), environment)


def _cell(text: str) -> str:
    return (
        " ".join(text.split())
        .replace("\\", "\\\\")
        .replace("|", "\\|")
        .replace("<", "&lt;")
        .replace("`", "'")
    )


def redact(text: str, environment: Environment) -> str:
    """Take the home folder, the user's and the host's name, tokens and passwords out of a text."""
    home = environment.home.rstrip("/\\")
    for written in {home, home.replace("\\", "\\\\"), home.replace("\\", "/")}:
        if len(written) > 1:
            text = re.sub(re.escape(written) + r"(?![\w.-])", "~", text, flags=re.IGNORECASE)
    for name, hidden in ((environment.user, "USER"), (environment.host, "HOST")):
        if name.lower() not in _NOBODY:
            text = re.sub(rf"(?<![\w-]){re.escape(name)}(?![\w-])", hidden, text, flags=re.IGNORECASE)
    return redaction.redact(re.sub(r"(?<=://)[^/@\s|]+@", "LOGIN@", text))

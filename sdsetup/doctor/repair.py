"""``--fix``: start what a finding's fix holds, look again, and say whether it helped."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Protocol

from sdsetup.bootstrap import action as actions
from sdsetup.doctor.finding import Finding, Fix
from sdsetup.errors import SetupError


class Prompter(Protocol):
    """Who talks with the person while something is repaired."""

    def tell(self, text: str) -> None:
        """Say something."""

    def ask(self, question: str) -> bool:
        """Ask; False when the answer is no or nobody is there."""

    def progress(self, line: str) -> None:
        """Pass on a line that a started program printed."""


def repairable(findings: Sequence[Finding]) -> list[Finding]:
    """List the findings whose fix can be started."""
    return [
        finding for finding in findings if finding.verdict.fix is not None and finding.verdict.fix.actions
    ]


def repair(
    findings: Sequence[Finding],
    look_again: Callable[[], tuple[Finding, ...]],
    prompter: Prompter,
    *,
    dry_run: bool,
) -> tuple[Finding, ...]:
    """Repair what can be repaired, one finding after the other.

    A repair may mend or change later findings, so the machine is read again after each.

    Args:
        findings: What was found.
        look_again: Reads and judges the machine anew.
        prompter: Is asked before each repair.
        dry_run: Say what would be started, and start nothing.

    Returns:
        The findings as they are afterwards.
    """
    current = {finding.id: finding for finding in findings}
    if not repairable(findings):
        prompter.tell("There is nothing here that --fix could repair.")
    for finding_id in [finding.id for finding in repairable(findings)]:
        finding = current[finding_id]
        fix = finding.verdict.fix
        if fix is None or not fix.actions:
            prompter.tell(f"{finding_id}: was mended along the way.")
            continue
        prompter.tell(f"{finding_id}: {finding.verdict.evidence}")
        prompter.tell(f"  {fix.says}:")
        for action in fix.actions:
            prompter.tell(f"    {action.label}")
        if dry_run or not prompter.ask("  Do that now?"):
            prompter.tell("  left as it is." if not dry_run else "  not started: --dry-run.")
            continue
        _start(fix, prompter)
        importlib.invalidate_caches()
        current = {found.id: found for found in look_again()}
        after = current[finding_id].verdict
        helped = after.status in {"ok", "skipped"}
        prompter.tell(f"  {'that helped' if helped else 'that did not help'}: {after.evidence}")
    return tuple(current[finding.id] for finding in findings)


def _start(fix: Fix, prompter: Prompter) -> None:
    for action in fix.actions:
        prompter.tell(f"  {action.label} ...")
        try:
            actions.run(action, prompter.progress)
        except SetupError as error:
            prompter.tell(f"  {error.message}")
            if error.hint:
                prompter.tell(f"  next: {error.hint}")
            return

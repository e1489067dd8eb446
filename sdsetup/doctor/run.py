"""What ``sdsetup doctor`` does, whoever shows it: the command line, or a bare Python."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, get_args

from sdsetup.bootstrap import console, places
from sdsetup.doctor import forecast, judge, report
from sdsetup.doctor.finding import Finding
from sdsetup.doctor.purpose import Kind, Purpose
from sdsetup.doctor.registry import Check
from sdsetup.doctor.repair import Prompter, repair
from sdsetup.errors import UsageError
from sdsetup.machine.facts import Environment, Questions
from sdsetup.machine.probe import probe

_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the person asked for; the names are those of the options."""

    kind: str = "anything"
    model: str = ""
    output: Path = Path("packages")
    only: Sequence[str] = ()
    list_only: bool = False
    as_json: bool = False
    as_report: bool = False
    strict: bool = False
    fix: bool = False
    dry_run: bool = False
    offline: bool = False


class Renderer(Prompter, Protocol):
    """Where the result goes."""

    def line(self, line: report.Line) -> None:
        """Show one line of the result."""

    def text(self, text: str) -> None:
        """Write text as data."""

    def document(self, document: dict[str, Any]) -> None:
        """Write a JSON document as data."""


def run(options: Options, renderer: Renderer) -> int:
    """Read, judge, perhaps repair, and show.

    Returns:
        0 when the machine will do, 1 when something stands in the way.

    Raises:
        UsageError: The options ask for something that does not exist.
    """
    kind = _kind(options.kind)
    only = [name for given in options.only for name in given.replace(",", " ").split()]
    chosen = judge.select(kind, only)
    if options.list_only:
        for check in chosen:
            renderer.text(f"{check.id:24} {check.title}: {check.why}")
        return 0
    wanted = forecast.purpose_for(kind, options.model)
    questions = _questions(options, wanted)
    findings, environment, purpose = _look(chosen, wanted, questions)
    if options.fix:
        if not (options.as_json or options.as_report):
            _show(findings, purpose, renderer)

        def look_again() -> tuple[Finding, ...]:
            nonlocal environment, purpose
            again, environment, purpose = _look(chosen, wanted, questions)
            return again

        findings = repair(findings, look_again, renderer, dry_run=options.dry_run)
    if options.as_json:
        renderer.document(report.to_json(findings, environment, purpose))
    elif options.as_report:
        renderer.text(report.to_markdown(findings, environment, purpose))
    elif options.fix:
        renderer.line(list(report.lines(findings, purpose))[-1])
    else:
        _show(findings, purpose, renderer)
    return report.exit_status(findings, strict=options.strict)


def _show(findings: Sequence[Finding], purpose: Purpose, renderer: Renderer) -> None:
    for line in report.lines(findings, purpose):
        renderer.line(line)


def _look(
    chosen: Sequence[Check], wanted: Purpose, questions: Questions
) -> tuple[tuple[Finding, ...], Environment, Purpose]:
    fields: frozenset[str] = frozenset().union(*(check.reads for check in chosen))
    with console.waiting("looking at this machine"):
        environment = probe(questions, only=fields)
    purpose = forecast.with_plan(wanted, environment)
    return judge.judge(chosen, environment, purpose), environment, purpose


def _kind(asked: str) -> Kind:
    kinds: tuple[Kind, ...] = get_args(Kind)
    for kind in kinds:
        if kind == asked:
            return kind
    raise UsageError(
        "doctor.unknown-purpose",
        f"sdsetup doctor knows no purpose {asked!r}.",
        "choose one: --for install, --for convert or --for generate.",
    )


def _questions(options: Options, wanted: Purpose) -> Questions:
    planned = options.model if forecast.is_planned(wanted) else ""
    on_hub = _REPOSITORY.fullmatch(options.model) and not Path(options.model).exists()
    return Questions(
        output=places.environment_folder() if wanted.kind == "install" else options.output,
        model=options.model if on_hub else "",
        offline=options.offline,
        converting=planned if wanted.kind == "convert" else "",
        drawing=planned if wanted.kind == "generate" else "",
        importing={"anything": "torch", "convert": "classes"}.get(wanted.kind, ""),
    )

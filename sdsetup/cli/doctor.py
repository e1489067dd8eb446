"""``sdsetup doctor``: know in seconds whether this machine can do it, why not, and what to type."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sdsetup.bootstrap import console
from sdsetup.cli import output

if TYPE_CHECKING:
    from sdsetup.doctor.report import Line

_STYLES = {"title": "bold", "warning": "yellow", "failure": "bold red", "skipped": "dim", "command": "cyan"}


class _Screen:
    """Shows the result on stdout, in colour where there is a terminal."""

    def __init__(self, *, yes: bool) -> None:
        self._yes = yes

    def line(self, line: Line) -> None:
        for text in line.folded(sys.stdout):
            output.emit_line(text, style=_STYLES.get(line.kind, ""))

    def text(self, text: str) -> None:
        output.emit(text)

    def document(self, document: dict[str, Any]) -> None:
        output.emit_json(document)

    def tell(self, text: str) -> None:
        output.say(text)

    def progress(self, line: str) -> None:
        if line.startswith(("Downloading", "  Downloading", "Installing", "Successfully", "Found existing")):
            output.say(f"    {line.strip()[:100]}", style="dim")

    def ask(self, question: str) -> bool:
        return console.ask(question, yes=self._yes)


def doctor(
    model: Annotated[
        str, typer.Argument(help="A Hub repository or a folder, for --for.", show_default=False)
    ] = "",
    kind: Annotated[
        str,
        typer.Option(
            "--for", help="Judge for one purpose.", metavar="install|convert|generate", show_default=False
        ),
    ] = "anything",
    where: Annotated[Path, typer.Option("--output", help="Where results would be written.")] = Path(
        "packages"
    ),
    only: Annotated[
        list[str] | None,
        typer.Option("--only", help="Run these checks or topics only; --list names them.", metavar="ID"),
    ] = None,
    list_only: Annotated[bool, typer.Option("--list", help="List the checks and run none.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Write one JSON document.")] = False,
    as_report: Annotated[
        bool, typer.Option("--report", help="Write Markdown for an issue, without names and secrets.")
    ] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 for warnings too.")] = False,
    offline: Annotated[bool, typer.Option("--offline", help="Leave the network alone.")] = False,
    fix: Annotated[bool, typer.Option("--fix", help="Repair what can be repaired, and look again.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="With --fix: only say what would be done.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="With --fix: do not ask.")] = False,
) -> None:
    """Look whether this machine can do it, why not, and what to type.

    Exits with 0 when it can, 1 when something stands in the way.
    """
    from sdsetup.doctor import run

    options = run.Options(
        kind=kind, model=model, output=where, only=only or (), list_only=list_only, as_json=as_json,
        as_report=as_report, strict=strict, fix=fix, dry_run=dry_run, offline=offline,
    )  # fmt: skip
    status = run.run(options, _Screen(yes=yes))
    if status:
        raise typer.Exit(status)

"""The doctor on a bare Python: the same options and the same text, without the command line's packages."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sdsetup.bootstrap import command_name, console
from sdsetup.doctor import run
from sdsetup.doctor.report import Line
from sdsetup.errors import UsageError


def main(arguments: Sequence[str]) -> int:
    """Run the doctor and return its exit status.

    Args:
        arguments: What follows ``doctor``.
    """
    parser = argparse.ArgumentParser(prog=f"{command_name.typed()} doctor", allow_abbrev=False)
    parser.add_argument("model", nargs="?", default="")
    parser.add_argument("--for", dest="kind", default="anything", metavar="install|convert|generate")
    parser.add_argument("--output", type=Path, default=Path("packages"))
    parser.add_argument("--only", action="append", default=[], metavar="ID")
    parser.add_argument("--list", dest="list_only", action="store_true")
    parser.add_argument("--json", dest="as_json", action="store_true")
    parser.add_argument("--report", dest="as_report", action="store_true")
    for flag in ("--strict", "--fix", "--dry-run", "--offline", "--yes"):
        parser.add_argument(flag, action="store_true")
    given = vars(parser.parse_args(list(arguments)))
    renderer = _Plain(yes=given.pop("yes"))
    try:
        return run.run(run.Options(**given), renderer)
    except UsageError as error:
        console.complain(error)
        return 2


class _Plain:
    """Shows everything as plain lines."""

    def __init__(self, *, yes: bool) -> None:
        self._yes = yes
        for stream in (sys.stdout, sys.stderr):
            reconfigure = getattr(stream, "reconfigure", None)
            if reconfigure is not None:
                reconfigure(errors="replace")

    def line(self, line: Line) -> None:
        for text in line.folded(sys.stdout):
            self.text(text)

    def text(self, text: str) -> None:
        sys.stdout.write(text + "\n")

    def document(self, document: dict[str, Any]) -> None:
        self.text(json.dumps(document, indent=2))

    def tell(self, text: str) -> None:
        console.say(text)

    def progress(self, line: str) -> None:
        pass

    def ask(self, question: str) -> bool:
        return console.ask(question, yes=self._yes)

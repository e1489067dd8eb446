"""What ``--help`` says before there is a command line: the clone's page of the commands, as plain text.

Standard library only.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator

from sdsetup.bootstrap import command_name, places

_WIDTH, _TERMS = 78, 30
_ROW = re.compile(r"\| (?P<term>.+?) (?<!\\)\| (?P<meaning>.+) \|")


def of(verb: str) -> str:
    """Return the help of a verb.

    Args:
        verb: As it was typed; empty for the overview of all.

    Returns:
        Lines of text; empty where there is no such verb, or no page: wheels come with the command line.
    """
    source = places.checkout()
    page = None if source is None else source / "docs" / "reference" / "cli.md"
    if page is None or not page.is_file():
        return ""
    lines = page.read_text(encoding="utf-8").splitlines()
    return "\n".join(_one(lines, verb) if verb else _overview(lines)).strip()


def _overview(lines: Iterable[str]) -> Iterator[str]:
    """Yield the verbs under their topics, each with its first sentence."""
    program = command_name.typed()
    yield f"Usage: {program} COMMAND [OPTIONS]"
    verb = ""
    for line in lines:
        if line.startswith("## "):
            yield from ("", f"{line.removeprefix('## ')}:")
        elif line.startswith("### sdsetup "):
            verb = line.removeprefix("### sdsetup ")
        elif verb and line and not line.startswith(" "):
            yield from _entry(verb, line, 12)
            verb = ""
    yield from ("", f"Begin with: {program} install", f"More of one: {program} COMMAND --help")


def _one(lines: Iterable[str], verb: str) -> Iterator[str]:
    """Yield a verb's own section, its tables as lists of terms."""
    inside = False
    for line in lines:
        if line.startswith("#"):
            inside = line == f"### sdsetup {verb}"
        elif inside and (row := _ROW.fullmatch(line)):
            term, meaning = (row[part].replace("`", "").replace("\\|", "|") for part in ("term", "meaning"))
            yield from [f"{term.capitalize()}s:"] if meaning == "meaning" else _entry(term, meaning, _TERMS)
        elif inside and line.startswith("    sdsetup"):
            yield f"Usage: {command_name.typed()}{line.strip().removeprefix('sdsetup')}"
        elif inside and not line.startswith("|--"):
            yield from textwrap.wrap(line, _WIDTH, break_on_hyphens=False) or [""]


def _entry(term: str, meaning: str, column: int) -> Iterator[str]:
    """Yield a term and beside it, or below it where it is long, its meaning."""
    indent = " " * (column + 2)
    first, *others = textwrap.wrap(
        meaning, _WIDTH, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False
    )
    if len(term) + 4 > len(indent):
        yield from (f"  {term}", first)
    else:
        yield f"  {term}".ljust(len(indent)) + first.lstrip()
    yield from others

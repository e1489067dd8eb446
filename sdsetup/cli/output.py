"""The only owner of consoles: data goes to stdout, everything meant for eyes goes to stderr.

Secrets are hidden here before text is wrapped or escaped; ``redaction.redacting_streams`` hides the rest.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

from sdsetup.bootstrap.command_name import as_typed
from sdsetup.bootstrap.console import HANG, folded
from sdsetup.redaction import redact, redact_document

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table

# The bars that are shown now.
_living: list[Progress] = []


@cache
def console() -> Console:
    """Return the one console for people; rich itself honours NO_COLOR, pipes and narrow terminals."""
    from rich.console import Console

    # What looks like the name of an emoji (<lora:x:1>) stays as it is.
    return Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)


def tolerate_any_text() -> None:
    """Make both streams replace what their encoding cannot write.

    A Windows console or pipe is often cp1252: an image's path in Japanese must not end the program.
    """
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")


def emit_json(document: Any) -> None:
    """Write one JSON document to stdout, ASCII only, so that any pipe can carry it."""
    sys.stdout.write(json.dumps(redact_document(document), indent=2, ensure_ascii=True) + "\n")
    sys.stdout.flush()


def emit(text: str) -> None:
    """Write a line of data to stdout."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def emit_line(text: str, *, style: str = "") -> None:
    """Write a line of data to stdout, in colour where that is a terminal; ``text`` is literal."""
    from rich.console import Console
    from rich.markup import escape

    Console(highlight=False, soft_wrap=True, emoji=False).print(escape(redact(text)), style=style or None)


def say(text: str, *, style: str = "") -> None:
    """Tell the person something. ``text`` is literal: brackets in it are no markup."""
    from rich.markup import escape

    for line in _lines(text):
        console().print(escape(line), style=style or None)


def _lines(text: str) -> list[str]:
    return [part for line in redact(text).split("\n") for part in folded(line, sys.stderr, hang=HANG)]


def show(table: Table) -> None:
    """Show a table to the person."""
    for column in table.columns:
        column._cells = [redact(cell) if isinstance(cell, str) else cell for cell in column._cells]
    console().print(table)


def complain(message: str, hint: str) -> None:
    """Show a failure and what to do about it."""
    from rich.markup import escape

    for title, style, text in (("error:", "bold red", message), ("next:", "bold", as_typed(hint))):
        if text:
            first, *others = _lines(f"{title} {text}")
            console().print(f"[{style}]{title}[/]{escape(first.removeprefix(title))}")
            for line in others:
                console().print(escape(line))


@contextmanager
def living(display: Progress) -> Iterator[None]:
    """Show bars while the block runs, which :func:`settle` takes away should the block never end."""
    _living.append(display)
    try:
        with display:
            yield
    finally:
        _living.remove(display)


def settle() -> None:
    """Leave the terminal as it was found: with its cursor, without bars, and with nothing half written."""
    for display in tuple(_living):
        display.stop()
    if console.cache_info().currsize and console().is_terminal:
        console().show_cursor(True)
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read our output has gone; Python would complain when it flushes once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

"""Render docs/reference/cli.md from the commands: ``python -m tests.docs.cli_reference --write``."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from enum import Enum
from importlib import import_module
from pathlib import Path
from typing import Any, get_args, get_type_hints

from sdsetup.cli.verbs import VERBS, Verb

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "cli.md"

_TOP = """\
# The command line

Rendered from the commands by `python -m tests.docs.cli_reference --write`; a test compares, so change a
command's docstring or options and not this page. `sdsetup VERB --help` shows the same in a terminal, and
`sdsetup --version` the version. In a clone, `python -m sdsetup VERB` runs it in the environment that
`install` has made.

What a program would read (paths, names, `--json`) goes to stdout; everything for people goes to stderr.

| exit status | meaning |
|---|---|
| 0 | all went well |
| 1 | it failed; the message says why and what to type next |
| 2 | wrong usage, or a value out of range |
| 130 | interrupted; it says what the same command does then |

Tokens and passwords are left out of all output. `SDSETUP_DEBUG=1` logs every detail to stderr.
"""
_VALUES = {int: "N", float: "X", Path: "PATH", str: "TEXT"}


def render() -> str:
    """Return the whole page."""
    parts = [_TOP]
    for topic in dict.fromkeys(verb.topic for verb in VERBS):
        parts.append(f"\n## {topic}\n")
        for verb in VERBS:
            if verb.topic == topic:
                parts.extend(_verb(verb))
    return "".join(parts)


def _verb(verb: Verb) -> Iterator[str]:
    """Yield the section of one verb: its docstring, its arguments and its options."""
    command: Any = verb.load()
    types = types_of(verb)
    shown = [param for param in command.params if param.name in types and not param.hidden]
    arguments = [param for param in shown if param.param_type_name == "argument"]
    options = [param for param in shown if param.param_type_name == "option"]
    usage = ["sdsetup", verb.name, *(_usage(each) for each in arguments), *(["[OPTIONS]"] if options else [])]
    yield f"\n### sdsetup {verb.name}\n\n    {' '.join(usage)}\n\n{inspect.cleandoc(command.help)}\n"
    for heading, params in (("argument", arguments), ("option", options)):
        if params:
            yield f"\n| {heading} | meaning |\n|---|---|\n"
            yield from (f"| {_name(param, types[param.name])} | {_meaning(param)} |\n" for param in params)


def _usage(argument: Any) -> str:
    name = argument.name.upper()
    return name if argument.required else f"[{name}]"


def types_of(verb: Verb) -> dict[str, type]:
    """Return the type of each parameter of a verb's function, without ``None`` and without ``list``."""
    name = verb.name.replace("-", "_")
    function = getattr(import_module(f"sdsetup.cli.{name}"), name)
    hints = get_type_hints(function)
    return {name: _innermost(hint) for name, hint in hints.items() if name != "return"}


def _innermost(hint: Any) -> type:
    inner = [each for each in get_args(hint) if each is not type(None)]
    return _innermost(inner[0]) if inner else hint


def _name(param: Any, kind: type) -> str:
    """Return what is typed: ``--width N``, or ``--cache``, ``--no-cache``."""
    if param.param_type_name == "argument":
        return f"`{param.name.upper()}`"
    if kind is bool:
        return ", ".join(f"`{name}`" for name in (*param.opts, *param.secondary_opts))
    value = param.metavar or _value(kind)
    return ", ".join(f"`{name} {value}`" for name in param.opts).replace("|", "\\|")


def _value(kind: type) -> str:
    if issubclass(kind, Enum):
        return "|".join(str(choice.value) for choice in kind)
    return _VALUES[kind]


def _meaning(param: Any) -> str:
    """Return the help, with range and default where the help does not say them."""
    notes = []
    if param.min is not None:
        notes.append(f"at least {param.min}" if param.max is None else f"{param.min} to {param.max}")
    if param.multiple:
        notes.append("may be given several times")
    if param.default not in (None, "", False) and param.show_default:
        default = param.opts[0] if param.default is True else _plain(param.default)
        notes.append(f"default `{default}`")
    words = " ".join(str(param.help or "").split())
    return f"{words} ({'; '.join(notes)})".replace("|", "\\|") if notes else words.replace("|", "\\|")


def _plain(value: Any) -> str:
    if isinstance(value, Enum):
        return str(value.value)
    return value.as_posix() if isinstance(value, Path) else str(value)


def main(arguments: list[str]) -> int:
    """Write the page, or print it."""
    if arguments == ["--write"]:
        PAGE.write_text(render(), encoding="utf-8", newline="\n")
    else:
        sys.stdout.write(render())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""What a person types to start sdsetup, in the shell and the folder that they are in, and its verb.

Standard library only.
"""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

VERBS = frozenset(
    {"install", "doctor", "update", "uninstall", "convert", "inspect", "verify", "download", "generate"}
    | {"smoke-test", "benchmark", "login", "whoami", "logout", "completion"}
)
# What no shell reads as anything else; and what sh reads between double quotes, too.
_PLAIN = re.compile(r"[\w@%+=:,./\\~-]+" if sys.platform == "win32" else r"[\w@%+=:,./~-]+")
_READ_IN_QUOTES = re.compile(r"[\"$`!\\]")
# Not where another program runs it, such as uvx, or a Python that is named.
_COMMAND = re.compile(
    r"(?<![\w/\\.\"-])(?<!uvx )(?<!pipx run )(?<!-m )(?:python -m )?sdsetup "
    rf"(?=(?:--help|{'|'.join(VERBS)})(?![\w-]))"
)


def verb_of(arguments: Sequence[str]) -> str:
    """Return the verb among what follows the program's name; empty where there is none."""
    return next((each for each in arguments if not each.startswith("-")), "")


def quoted(text: str) -> str:
    """Write a part of a command as shells and cmd read it as one, and as what it is."""
    if _PLAIN.fullmatch(text):
        return text
    return shlex.quote(text) if sys.platform != "win32" and _READ_IN_QUOTES.search(text) else f'"{text}"'


def argv() -> tuple[str, ...]:
    """List the command as it is found from here: its name where PATH leads to it, else its path."""
    script = _script()
    found = shutil.which("sdsetup")
    if found is not None and _same(Path(found), script):
        return ("sdsetup",)
    if not script.is_file():
        return (_python(), "-m", "sdsetup")
    return (_from_here(script.with_suffix("") if sys.platform == "win32" else script),)


def typed() -> str:
    """Write the command of :func:`argv` as sh, fish and cmd read it."""
    first, *others = argv()
    return " ".join((first if first.isascii() and " " not in first else f'"{first}"', *others))


def as_typed(text: str) -> str:
    """Write the commands of a hint as they are found from here, where PATH does not lead to the name."""
    if argv() == ("sdsetup",):
        return text
    if not _script().is_file():  # where the name does not lead anywhere, only the Python is another
        return text.replace("python -m sdsetup ", f"{typed()} ")
    return _COMMAND.sub(lambda _: f"{typed()} ", text)


def pattern() -> str:
    """Write a pattern of a command in a text: up to its end, or to a semicolon."""
    verbs = "|".join(sorted(VERBS, key=len, reverse=True))
    return rf"{re.escape(typed())} (?:{verbs})(?![\w-])[^;]*|source (?:\"[^\"]*\"|\S+)"


def activation(shell: str) -> str:
    """Write the line that puts the environment's commands on PATH for this terminal.

    Args:
        shell: ``sh``, ``fish``, ``cmd`` or ``powershell``.

    Returns:
        The line; empty where the command is found already, or nothing of the kind is there.
    """
    name = {"fish": "activate.fish", "cmd": "activate.bat", "powershell": "Activate.ps1"}.get(
        shell, "activate"
    )
    script = Path(sys.prefix) / ("Scripts" if sys.platform == "win32" else "bin") / name
    if typed() == "sdsetup" or not script.is_file() or not _script().is_file():
        return ""
    path = _from_here(script)
    written = quoted(path)
    return {"cmd": written, "powershell": f"& {written}" if " " in path else written}.get(
        shell, f"source {written}"
    )


def _script() -> Path:
    """Return where the environment's command is, or would be."""
    return Path(sys.prefix) / ("Scripts/sdsetup.exe" if sys.platform == "win32" else "bin/sdsetup")


def _python() -> str:
    """Name the running Python as it is typed: some systems have a python3 and no python."""
    return Path(sys.executable).name.removesuffix(".exe")


def _from_here(path: Path) -> str:
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def _same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False

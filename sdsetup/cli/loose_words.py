"""More words than a verb takes, as they come from a prompt or a path that was typed without quotes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sdsetup.bootstrap.command_name import quoted
from sdsetup.cli import package_folder
from sdsetup.errors import UsageError


def too_many(verb: str, names: Sequence[str], words: Sequence[str]) -> UsageError:
    """Say what to put in quotes.

    Args:
        verb: The command that was called.
        names: Its arguments.
        words: All that was typed for them; more than it takes.
    """
    if names == ["package", "prompt"]:
        length = next((n for n in range(len(words) - 1, 1, -1) if _is_there(words[:n])), 1)
        package, prompt = Path(" ".join(words[:length])), " ".join(words[length:])
        return UsageError(
            "arguments.unquoted",
            f"{verb} takes a package and a prompt, and here are {len(words)} words.",
            f"put each in quotes, and add the options again: {package_folder.command(verb, package, prompt)}",
        )
    if len(names) == 1:
        hint = f"if it is one with spaces, put it in quotes: sdsetup {verb} {quoted(' '.join(words))}"
        message = f"{verb} takes one {names[0]}, and here are {len(words)} words: {', '.join(words)}."
        return UsageError("arguments.unquoted", message, hint)
    extra = ", ".join(words[len(names) :])
    return UsageError("arguments.too_many", f"{verb} does not take: {extra}.", f"sdsetup {verb} --help")


def _is_there(words: Sequence[str]) -> bool:
    try:
        return Path(" ".join(words)).is_dir()
    except (OSError, ValueError):
        return False

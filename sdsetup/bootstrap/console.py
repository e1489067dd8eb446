"""Progress and messages on a bare Python, where rich is not there yet."""

from __future__ import annotations

import re
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TextIO

from sdsetup.bootstrap import command_name
from sdsetup.bootstrap.command_name import as_typed, verb_of
from sdsetup.errors import SetupError

# The verbs that find what an earlier run of theirs has finished; all others begin at the beginning.
_GO_ON = frozenset({"install", "convert", "download", "update", "uninstall"})
_BEAT_SECONDS = 0.5
_SILENCE_SECONDS = 60.0


def say(text: str) -> None:
    """Write a line to stderr, whatever its encoding can hold."""
    encoding = sys.stderr.encoding or "ascii"
    sys.stderr.write(text.encode(encoding, "replace").decode(encoding) + "\n")
    sys.stderr.flush()


# Under what the second and further lines of a sentence begin.
HANG = 2


def say_folded(text: str, *, hang: int) -> None:
    """Write a line to stderr, folded where that is a narrower terminal; see :func:`folded`."""
    for line in folded(text, sys.stderr, hang=hang):
        say(line)


def folded(text: str, stream: TextIO, *, hang: int) -> list[str]:
    """Break a line between words at the width of the terminal; a stream that is none takes it whole.

    A command is not broken, so that it can be copied.

    Args:
        text: The line.
        stream: Where it is to be written.
        hang: By how many columns all lines but the first are indented.
    """
    if not stream.isatty():
        return [text]
    width = shutil.get_terminal_size().columns - 1
    lines = [""]
    for word in re.findall(rf"\s*(?:{command_name.pattern()}|`[^`]*`\S*|\S+)", text):
        if lines[-1] and len(lines[-1] + word) > width:
            lines.append(" " * hang + word.lstrip())
        else:
            lines[-1] += word
    return lines


def interrupted(arguments: Sequence[str]) -> str:
    """Say after Ctrl-C what the same command would do.

    Args:
        arguments: What follows the program's name.
    """
    verb = verb_of(arguments)
    again = "go on" if verb in _GO_ON else "start again"
    return f"Interrupted. Run the same command to {again}."


def complain(error: SetupError) -> None:
    """Show a failure and what to do about it, in the command line's own form."""
    say_folded(f"error: {error.message}", hang=HANG)
    if error.hint:
        say_folded(f"next: {as_typed(error.hint)}", hang=HANG)


class Steps:
    """Named steps with their time; on a terminal a living line shows what the running one is doing."""

    def __init__(self, title: str) -> None:
        self._began = time.monotonic()
        self._terminal = sys.stderr.isatty()
        say(title)

    @contextmanager
    def step(self, label: str) -> Iterator[Callable[[str], None]]:
        """Show a step while the block runs.

        Yields:
            A listener for the lines that the step's program prints.
        """
        began = shown = time.monotonic()
        doing = ""

        def listener(line: str) -> None:
            nonlocal doing
            if line.strip() and not line.startswith("    "):  # pip indents what matters to itself
                doing = _in_short(line)

        def beat(seconds: float) -> None:
            nonlocal shown
            if self._terminal:
                _rewrite(f"  {label} ({seconds:.0f} s): {doing}")
            elif time.monotonic() - shown >= _SILENCE_SECONDS:
                shown = time.monotonic()
                say(f"    still at it after {seconds:.0f} s: {doing}")

        if not self._terminal:
            say(f"  {label} ...")
        try:
            with _beating(beat):
                yield listener
        except BaseException as error:
            how = "stopped" if isinstance(error, KeyboardInterrupt) else "failed"
            say(f"  {label}: {how} after {time.monotonic() - began:.0f} s")
            raise
        say(f"  {label}: {time.monotonic() - began:.0f} s")

    def end(self, text: str) -> None:
        """Say that all steps are over."""
        say(f"  {text} ({time.monotonic() - self._began:.0f} s in all)")


@contextmanager
def waiting(label: str) -> Iterator[None]:
    """Say on a terminal what a person waits for while the block runs, and take that away again."""
    if not sys.stderr.isatty():
        yield
        return
    with _beating(lambda seconds: _rewrite(f"{label} ({seconds:.0f} s)")):
        yield


@contextmanager
def _beating(beat: Callable[[float], None]) -> Iterator[None]:
    """Call ``beat`` again and again with the seconds since the block began; then clear a terminal's line."""
    over = threading.Event()
    began = time.monotonic()

    def tick() -> None:
        while not over.wait(_BEAT_SECONDS):
            beat(time.monotonic() - began)

    ticker = threading.Thread(target=tick, daemon=True)
    ticker.start()
    try:
        yield
    finally:
        over.set()
        ticker.join()
        if sys.stderr.isatty():
            _rewrite("")


def _rewrite(text: str) -> None:
    """Write over the terminal's present line."""
    # Spaces, not an escape sequence: an old Windows console would print that.
    width = shutil.get_terminal_size().columns - 1
    sys.stderr.write("\r" + text[:width].ljust(width) + "\r" + text[:width])
    sys.stderr.flush()


def _in_short(line: str) -> str:
    """Keep of a pip line what a person wants to know."""
    words = line.strip().split()
    if words[0] in {"Collecting", "Downloading", "Processing", "Using", "Building", "Obtaining"}:
        size = " ".join(words[-2:]) if words[-1].endswith(")") and "(" in words[-2] else ""
        name = next((word for word in words[1:] if word != "cached"), "")
        return f"{words[0].lower()} {name.rsplit('/', 1)[-1]} {size}".strip()
    if line.startswith("Installing collected packages"):
        return f"unpacking {len(line.split(','))} packages"
    return line.strip()


def is_attended() -> bool:
    """Tell whether somebody is there to answer."""
    return bool(sys.stdin) and sys.stdin.isatty() and sys.stderr.isatty()


def ask(question: str, *, yes: bool) -> bool:
    """Ask yes or no on stderr; without anybody to answer, the answer is no.

    Args:
        question: What is asked.
        yes: The person said yes to everything beforehand.
    """
    if yes:
        return True
    if not sys.stdin or not sys.stdin.isatty():
        say(f"{question} nobody is here to answer; --yes would say yes to everything")
        return False
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    try:
        return sys.stdin.readline().strip().lower() in {"y", "yes"}
    except KeyboardInterrupt:
        say("")  # the terminal shows ^C behind the question
        raise

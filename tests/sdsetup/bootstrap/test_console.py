"""Lines on a terminal of 80 columns, and none of that where there is no terminal."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sdsetup.bootstrap import console
from sdsetup.cli import output

LINE = "  libraries    with PyTorch's CPU build, if it is reached: download at most 300 MB, 1.6 GB on disk"


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _eighty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


def test_lines_are_broken_between_words_and_go_on_below() -> None:
    first, second = console.folded(LINE, _Terminal(), hang=15)
    assert len(first) < 80
    assert first.startswith("  libraries    with")
    assert second.startswith(" " * 15)
    assert " ".join(f"{first} {second}".split()) == " ".join(LINE.split())
    assert console.folded("short", _Terminal(), hang=15) == ["short"]


def test_a_word_is_never_broken_and_a_file_gets_whole_lines() -> None:
    path = "/home/" + "a" * 100
    assert console.folded(f"in {path} it", _Terminal(), hang=2) == ["in", f"  {path}", "  it"]
    assert console.folded(LINE, io.StringIO(), hang=15) == [LINE]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals for Python")
def test_on_a_terminal_a_long_label_leaves_room_for_the_time_and_what_is_done() -> None:
    import pty

    code = (
        "import time; from sdsetup.bootstrap import console\n"
        "step = console.Steps('Setting up').step\n"
        "with step('installing the libraries, about 300 MB the first time') as tell:\n"
        "    tell('Collecting numpy'); time.sleep(1.2)\n"
        "with console.waiting('looking'): time.sleep(1.2)\n"
    )
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.DEVNULL, stderr=theirs, cwd=Path(__file__).parents[3],
        env={**os.environ, "COLUMNS": "80"},
    ):  # fmt: skip
        os.close(theirs)
        said = b""
        try:
            while part := os.read(ours, 4096):
                said += part
        except OSError:  # the other end is closed
            pass
    os.close(ours)
    assert re.search(rb"time \(\d+ s\): collecting numpy", said)
    assert re.search(rb"looking \(\d+ s\)", said)
    assert said.decode().split("\r")[-1].strip() == ""


def test_a_command_stays_whole_so_that_it_can_be_copied() -> None:
    program = console.command_name.typed()
    text = f'Make an image of your own with this: {program} generate "packages/demo" "a {"red " * 12}ball"'
    assert console.folded(text, _Terminal(), hang=2) == [
        "Make an image of your own with this:",
        f'  {program} generate "packages/demo" "a {"red " * 12}ball"',
    ]
    ticked = f"{'word ' * 14}and `sdsetup convert demo --overwrite`."
    assert console.folded(ticked, _Terminal(), hang=2)[1] == "  `sdsetup convert demo --overwrite`."


def test_sentences_of_the_command_line_are_folded_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Not the kept one: rich asks once whether colours can be shown.
    monkeypatch.setattr(output, "console", output.console.__wrapped__)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    output.say(f"{'one ' * 30}[two]")
    output.complain(f"{'one ' * 30}[two]", f"{'three ' * 20}")
    said = re.sub(r"\x1b\[[\d;]*m", "", capsys.readouterr().err).splitlines()
    assert max(map(len, said)) < 80
    assert [line.split(" ")[0] for line in said if not line.startswith("  ")] == ["one", "error:", "next:"]
    assert "[two]" in said[1]

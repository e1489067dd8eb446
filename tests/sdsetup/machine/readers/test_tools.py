"""Programs that are found by name."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from sdsetup.machine.facts import Questions, Tools
from sdsetup.machine.readers import tools

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="writes shell scripts")


def put(folder: Path, name: str, script: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{script}\n", "latin-1")
    (folder / name).chmod(0o755)


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ('[ "$*" = "--version" ] && printf "git version 2.45\\nmore\\n"', "git version 2.45"),
        ("printf 'git \\377\\n'", "git \ufffd"),
        ("echo git; exit 3", ""),
        ("exit 0", ""),
    ],
)
def test_the_first_line_of_git_s_version(
    script: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    questions = Questions(output=tmp_path)
    assert tools.read(questions) == Tools(git="", vulkan="")
    put(tmp_path, "git", script)
    put(tmp_path, "vulkaninfo", "exit 1")
    assert tools.read(questions) == Tools(git=said, vulkan=str(tmp_path / "vulkaninfo"))

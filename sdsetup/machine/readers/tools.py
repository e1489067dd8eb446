"""Programs that are found by name on PATH."""

from __future__ import annotations

import shutil
import subprocess

from sdsetup.machine.facts import Questions, Tools


def read(_questions: Questions) -> Tools:
    """Look for the programs."""
    return Tools(git=_first_line("git", "--version"), vulkan=shutil.which("vulkaninfo") or "")


def _first_line(program: str, *arguments: str) -> str:
    found = shutil.which(program)
    if found is None:
        return ""
    try:
        answer = subprocess.run(
            [found, *arguments],
            capture_output=True, errors="replace", timeout=4, check=True, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return ""
    return next(iter(answer.stdout.splitlines()), "")

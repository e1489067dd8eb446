"""Commands in processes that begin where Python's imports have ended: what is killed is at work."""

from __future__ import annotations

import importlib
import json
import os
import select
import subprocess
import sys
from contextlib import suppress
from types import TracebackType
from typing import Self

from tests.robustness.user import User, kill_family


class WarmStart:
    """Starts one command again and again, each time as a fork of a process that has imported all it needs."""

    def __init__(self, user: User, command: list[str]) -> None:
        self._command = command
        self._parent: subprocess.Popen[str] = user._popen(
            [sys.executable, "-c", f"from {__name__} import serve; serve()"]
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._parent.communicate()

    def killed_after(self, seconds: float) -> bool:
        """Start the command and kill it with its children after a time; tell whether it was still running."""
        assert self._parent.stdin is not None
        assert self._parent.stdout is not None
        self._parent.stdin.write(json.dumps(self._command) + "\n")
        self._parent.stdin.flush()
        pid = int(self._parent.stdout.readline())
        ended, _, _ = select.select([self._parent.stdout], [], [], seconds)
        if not ended:
            kill_family(pid)
        self._parent.stdout.readline()
        return not ended


def serve() -> None:
    """Fork once for each line, a command, and answer with the child's number and then with its end."""
    warm = False
    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        command = json.loads(line)
        if not warm:
            _import_what_is_used(command)
            warm = True
        pid = os.fork()
        if pid == 0:
            _run(command)
        answers.write(f"{pid}\n")
        answers.flush()
        _, status = os.waitpid(pid, 0)
        answers.write(f"{status}\n")
        answers.flush()


def _import_what_is_used(command: list[str]) -> None:
    """Import what a child imports that runs the command whole; its sessions and threads end with it."""
    reads, writes = os.pipe()
    pid = os.fork()
    if pid == 0:
        _run(command, names_to=writes)
    os.close(writes)
    with os.fdopen(reads) as file:
        names = file.read().split()
    os.waitpid(pid, 0)
    for name in names:
        with suppress(Exception):
            importlib.import_module(name)


def _run(command: list[str], names_to: int | None = None) -> None:
    from sdsetup.cli.app import main

    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    code = main(command)
    if names_to is not None:
        with os.fdopen(names_to, "w") as file:
            file.write("\n".join(sorted(sys.modules)))
    os._exit(code)

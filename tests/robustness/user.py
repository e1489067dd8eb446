"""A user whose every command is judged: no traceback, no hang, no file where none belongs."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.hub_server.client import Done, Machine

HANG_SECONDS = 60.0
# Beyond that a command that fills the memory is told so by the system, and the machine lives on.
_MEMORY_BYTES = 24 << 30
# Sessions of ONNX Runtime and imports leave something behind: a fresh process now and then.
_COMMANDS_A_PROCESS = 400
_WRONG_WORDS = ("Traceback (most recent", "internal error", "Exception ignored", "Fatal Python error")

Listing = dict[str, tuple[int, int]]


class LawBrokenError(AssertionError):
    """A command did what no command may do."""


@dataclass(kw_only=True)
class User(Machine):
    """Runs commands in a kept process, which is replaced when it died or hung.

    Attributes:
        hang_seconds: After this time a command counts as hanging and is killed.
        slowest_seconds: The longest command so far.
        commands: How many were run.
        watches: Whether files are listed before and after each command.
    """

    hang_seconds: float = HANG_SECONDS
    slowest_seconds: float = 0.0
    commands: int = 0
    watches: bool = True
    _hung: bool = field(default=False, init=False)

    def run(self, *arguments: str, stdin: str = "", **extra: str) -> Done:
        """Run ``sdsetup ARGUMENTS``.

        Raises:
            LawBrokenError: It hung, died, or showed what is for developers.
        """
        if self._shell is None or self.commands % _COMMANDS_A_PROCESS == 0:
            self._restart()
        self.commands += 1
        assert self._shell is not None
        assert self._shell.stdin is not None
        assert self._shell.stdout is not None
        self._hung = False
        watchdog = threading.Timer(self.hang_seconds, self._end_hanging)
        began = time.monotonic()
        watchdog.start()
        try:
            json.dump({"arguments": arguments, "stdin": stdin, "environment": extra}, self._shell.stdin)
            self._shell.stdin.write("\n")
            self._shell.stdin.flush()
            answer = self._shell.stdout.readline()
        finally:
            watchdog.cancel()
            self.slowest_seconds = max(self.slowest_seconds, time.monotonic() - began)
        if not answer:
            _, said = self._shell.communicate()
            code, self._shell = self._shell.returncode, None
            what = f"hung for {self.hang_seconds:g} s" if self._hung else f"ended Python with status {code}"
            raise LawBrokenError(f"{arguments[0]} {what}: {said.strip()[-1500:]}")
        done = Done(**json.loads(answer))
        judge(arguments[0], done)
        return done

    @contextmanager
    def writing_only(self, *places: Path) -> Iterator[None]:
        """Demand that the commands in the block change no file but below ``places`` and in the caches.

        Raises:
            LawBrokenError: Names the first file.
        """
        # The folder above too: that is where names with ".." would lead.
        root = self.home.parent
        reports = [
            place.with_name(f"{place.name}{ending}.html")
            for place in places
            for ending in ("-report", "-failed-report")
        ]
        allowed = [*places, *reports, self.home / "hf", self.caches or self.home / "caches"]
        before = list_files(root, allowed)
        yield
        after = list_files(root, allowed)
        changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
        if changed:
            raise LawBrokenError(f"files changed outside the output folder: {changed[:3]}")

    def _restart(self) -> None:
        if self._shell is not None:
            self._shell.communicate(timeout=30)
        command = [sys.executable, "-c", "from tests.hub_server.client import serve; serve()"]
        self._shell = self._popen(command)
        if sys.platform == "linux":
            resource.prlimit(self._shell.pid, resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))

    def _end_hanging(self) -> None:
        self._hung = True
        if self._shell is not None:
            kill_with_children(self._shell)


def judge(verb: str, done: Done) -> None:
    """Look at how a command ended.

    Raises:
        LawBrokenError: It shows a traceback, fails without a word, or has a status of its own.
    """
    for words in _WRONG_WORDS:
        if words in done.stderr + done.stdout:
            raise LawBrokenError(f"{verb} shows {words!r}: {done.stderr.strip()[-1500:]}")
    if done.code not in (0, 1, 2):
        raise LawBrokenError(f"{verb} ended with status {done.code}: {done.stderr.strip()[-1500:]}")
    if done.code and not done.stderr.strip():
        raise LawBrokenError(f"{verb} failed without a word")
    if done.code and "error:" in done.stderr and "next:" not in done.stderr:
        raise LawBrokenError(f"{verb} fails without a next step: {done.stderr.strip()[-500:]}")


def list_files(root: Path, without: Collection[Path] = ()) -> Listing:
    """List what is below a folder, links not followed: size and time of change by name."""
    found: Listing = {}
    waiting = [root]
    while waiting:
        for path in waiting.pop().iterdir():
            if path in without:
                continue
            if path.is_dir() and not path.is_symlink():
                waiting.append(path)
            else:
                status = path.lstat()
                found[path.relative_to(root).as_posix()] = (status.st_size, status.st_mtime_ns)
    return found


def kill_with_children(process: subprocess.Popen[str]) -> None:
    """End a process and all that it started with SIGKILL, at once."""
    kill_family(process.pid)


def kill_family(pid: int) -> None:
    """End a process and all that it started with SIGKILL, at once."""
    import psutil

    try:
        family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for each in family:
        try:
            each.kill()
        except psutil.NoSuchProcess:
            continue

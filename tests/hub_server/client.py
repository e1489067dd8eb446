"""The real command line in processes of its own, pointed at a server of ours."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, kw_only=True)
class Done:
    """A finished command."""

    code: int
    stdout: str
    stderr: str


@dataclass(kw_only=True)
class Machine:
    """A user's machine: a home for caches and tokens, and the Hub's address.

    Commands run one after another in one process by ``run``, or each in a fresh one by ``run_cold``.

    Attributes:
        endpoint: The Hub, or a mirror.
        home: Holds ``HF_HOME``; the working folder.
        stall_seconds: How long silence is borne.
        caches: Folder of other caches, such as traced graphs; below ``home`` unless set.
    """

    endpoint: str
    home: Path
    stall_seconds: int = 1
    caches: Path | None = None
    _shell: subprocess.Popen[str] | None = field(init=False, default=None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._shell is not None:
            self._shell.communicate(timeout=30)

    @property
    def cache(self) -> Path:
        return self.home / "hf" / "hub"

    def storage(self, repo_id: str) -> Path:
        return self.cache / f"models--{repo_id.replace('/', '--')}"

    def environment(self, **extra: str) -> dict[str, str]:
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING_FACE"))
        }
        return {
            **inherited,
            "HF_ENDPOINT": self.endpoint,
            "HF_HOME": str(self.home / "hf"),
            "HF_HUB_DOWNLOAD_TIMEOUT": str(self.stall_seconds),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "NO_PROXY": "127.0.0.1",
            "PYTHONPATH": str(_ROOT),
            "PYTHONIOENCODING": "utf-8",
            "COLUMNS": "200",
            "XDG_CACHE_HOME": str(self.caches or self.home / "caches"),
            "LOCALAPPDATA": str(self.caches or self.home / "caches"),
            **extra,
        }

    def run(self, *arguments: str, stdin: str = "", **extra: str) -> Done:
        """Run ``sdsetup ARGUMENTS`` in a process that is kept for the next command."""
        if self._shell is None:
            self._shell = self._popen([sys.executable, "-c", f"from {__name__} import serve; serve()"])
        assert self._shell.stdin is not None
        assert self._shell.stdout is not None
        json.dump({"arguments": arguments, "stdin": stdin, "environment": extra}, self._shell.stdin)
        self._shell.stdin.write("\n")
        self._shell.stdin.flush()
        answer = self._shell.stdout.readline()
        assert answer, self._shell.communicate()[1]
        return _checked(Done(**json.loads(answer)))

    def run_cold(self, *arguments: str, stdin: str = "", **extra: str) -> Done:
        """Run ``sdsetup ARGUMENTS`` in a process of its own."""
        process = self.start(*arguments, **extra)
        out, err = process.communicate(stdin, timeout=1800)
        return _checked(Done(code=process.returncode, stdout=out, stderr=err))

    def run_script(self, script: str, **extra: str) -> str:
        """Run Python code of a test on this machine and return what it prints."""
        process = self._popen([sys.executable, "-c", script], **extra)
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        return out

    def start(self, *arguments: str, **extra: str) -> subprocess.Popen[str]:
        return self._popen([sys.executable, "-m", "sdsetup", *arguments], **extra)

    def _popen(self, arguments: list[str], **extra: str) -> subprocess.Popen[str]:
        self.home.mkdir(parents=True, exist_ok=True)
        return subprocess.Popen(
            arguments,
            env=self.environment(**extra),
            cwd=self.home,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )


def serve() -> None:
    """Be the kept process: one command a line, one result a line."""
    from sdsetup.cli.app import main

    answers = sys.stdout
    for line in sys.stdin:
        job = json.loads(line)
        out, err = io.StringIO(), io.StringIO()
        before = dict(os.environ)
        os.environ.update(job["environment"])
        kept_stdin, sys.stdin = sys.stdin, io.StringIO(job["stdin"])
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                code = main(job["arguments"])
        finally:
            sys.stdin = kept_stdin
            os.environ.clear()
            os.environ.update(before)
        json.dump({"code": code, "stdout": out.getvalue(), "stderr": err.getvalue()}, answers)
        answers.write("\n")
        answers.flush()


def _checked(done: Done) -> Done:
    """No traceback may ever reach the user."""
    assert "Traceback" not in done.stderr, done.stderr
    return done

"""What child processes write themselves holds no token: tracebacks, prints, native code's messages."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="looks for logs in the POSIX place")
TOKEN = "hf_0Planted0In0A0Child0"  # noqa: S105
ROOT = Path(__file__).parents[3]

_WORKER = """
import multiprocessing, sys
from tests.sdsetup.runtime.test_worker_output import Bomb
from sdsetup.runtime import worker
ours, theirs = multiprocessing.Pipe()
process = multiprocessing.get_context("spawn").Process(
    target=worker._serve, args=(theirs, None, None, False, frozenset(), {}, None, {})
)
process.start()
theirs.close()
ours.send(Bomb())
process.join()
sys.exit(process.exitcode)
"""
_ISOLATED = """
from conversions.isolated_process import isolated_process
from sdsetup.cli import app
from sdsetup.redaction import redacting_streams
from tests.sdsetup.runtime.test_worker_output import FUNCTIONS
with redacting_streams():
    try:
        with isolated_process("testing") as process:
            process.call(FUNCTIONS[{index}])
    except Exception as error:
        app._explain(error, [])
"""


class Bomb:
    """Fails where it is unpickled, with a token in its message."""

    def __reduce__(self) -> tuple[Any, ...]:
        return explode, ()


def explode() -> None:
    os.write(2, f"native code says {os.environ['HF_TOKEN']}\n".encode())
    print(f"a print says {os.environ['HF_TOKEN']}")  # noqa: T201
    raise ValueError(f"a traceback says {os.environ['HF_TOKEN']}")


def die() -> None:
    os.write(2, f"its last words: {os.environ['HF_TOKEN']}\n".encode())
    os._exit(3)


FUNCTIONS = (explode, die)


def run(script: str, tmp_path: Path) -> tuple[int, str, str]:
    """Run Python code with a token in its environment; return all that it leaves behind, logs too."""
    variables = {"HF_TOKEN": TOKEN, "PYTHONPATH": str(ROOT), "XDG_STATE_HOME": str(tmp_path / "state")}
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, **variables},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    logs = "".join(path.read_text("utf-8") for path in (tmp_path / "state").rglob("*.log"))
    return done.returncode, done.stdout + done.stderr, logs


def test_a_worker_that_dies_shows_its_traceback_without_the_token(tmp_path: Path) -> None:
    code, said, _ = run(_WORKER, tmp_path)
    assert code == 1
    for words in ("native code says <hidden>", "a print says <hidden>", "a traceback says <hidden>"):
        assert words in said
    assert TOKEN not in said


def test_an_exception_of_an_isolated_process_is_shown_and_logged_without_the_token(tmp_path: Path) -> None:
    _, said, logs = run(_ISOLATED.format(index=0), tmp_path)
    assert "a traceback says <hidden>" in said
    assert "a traceback says <hidden>" in logs
    assert TOKEN not in said + logs


def test_the_last_words_of_an_isolated_process_are_shown_without_the_token(tmp_path: Path) -> None:
    _, said, logs = run(_ISOLATED.format(index=1), tmp_path)
    assert "its last words: <hidden>" in said
    assert TOKEN not in said + logs

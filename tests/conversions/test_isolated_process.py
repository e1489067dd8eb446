"""Child processes: they end as they end, and what is said about it is known."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from conversions.errors import ConversionError
from conversions.isolated_process import _memory_of, _tree, isolated_process
from conversions.process_end import ProcessEnd, explain
from tests.conversions import in_a_child

ROOT = Path(__file__).parents[2]
posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals")


def caught(function: object, *arguments: object, **limits: float) -> ConversionError:
    with pytest.raises(ConversionError) as error, isolated_process("testing", **limits) as process:  # type: ignore[arg-type]
        process.call(function, *arguments)  # type: ignore[arg-type]
    return error.value


def test_values_come_back_and_noise_does_not(capfd: pytest.CaptureFixture[str]) -> None:
    values = np.arange(3_000_000, dtype=np.float64)
    with isolated_process("testing") as process:
        np.testing.assert_array_equal(process.call(in_a_child.double, values), values * 2)
        assert process.call(in_a_child.fill, 10_000_000).sum() == 10_000_000
        child = process.call(in_a_child.pid)
        assert process.call(in_a_child.pid) == child != os.getpid()
    assert not psutil.pid_exists(child)
    assert capfd.readouterr() == ("", "")


def test_calls_run_side_by_side_in_as_many_processes() -> None:
    with isolated_process("testing", workers=2) as processes:
        calls = [processes.submit(in_a_child.nap, seconds) for seconds in (0.3, 0.2, 0.1, 0.0)]
        assert [call.result() for call in calls] == [0.3, 0.2, 0.1, 0.0]
        pids = {processes.submit(in_a_child.pid).result() for _ in range(4)}
    assert len(pids) <= 2


def test_exceptions_arrive_as_they_were_raised() -> None:
    error = caught(in_a_child.refuse)
    assert (error.code, error.message, error.hint) == ("a.code", "A message.", "A hint.")
    with isolated_process("testing") as process:
        with pytest.raises(TypeError, match="unsupported operand") as raised:
            process.call(in_a_child.raise_type_error)
        assert "in raise_type_error" in str(raised.value.__cause__)
        with pytest.raises(RuntimeError, match="AwkwardError: this and that"):
            process.call(in_a_child.raise_awkward)
        assert process.call(in_a_child.double, 2) == 4


def test_an_exit_is_told_with_its_status_and_last_words() -> None:
    error = caught(in_a_child.exit_with, 3)
    assert error.code == "process.died"
    assert "exit status 3" in error.message
    assert "goodbye" in error.message
    assert "memory" not in error.message.split("It used")[0]
    assert "last \ufffd word" in caught(in_a_child.exit_with_bytes, b"last \xff word").message


@posix
def test_all_that_a_process_started_belongs_to_it() -> None:
    """Processes of processes, until none is left of them."""
    sleeping = "import sys, time; print(1, flush=True); time.sleep(60)"
    starting = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {sleeping!r}])"
    outer = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {starting!r}])"
    with subprocess.Popen([sys.executable, "-c", outer], stdout=subprocess.PIPE) as first:
        assert first.stdout is not None
        first.stdout.readline()
        found = _tree(first.pid)
        for each in found:
            each.kill()
    assert len(found) >= 3
    assert found[0].pid == first.pid
    assert _memory_of(os.getpid()) > 1 << 20
    assert _memory_of(first.pid) == 0
    assert _tree(first.pid) == []


@posix
@pytest.mark.parametrize("name", ["SIGKILL", "SIGSEGV", "SIGABRT", "SIGTERM"])
def test_a_signal_is_told_by_its_name_and_memory_is_not_blamed(name: str) -> None:
    error = caught(in_a_child.die_by, name)
    assert error.code == "process.died"
    assert name in error.message
    assert "want of memory" not in error.message


def test_want_of_memory_is_told_when_the_process_said_so() -> None:
    error = caught(in_a_child.say_no_memory)
    assert error.code == "process.memory"
    assert "bad_alloc" in error.message


def test_a_memory_limit_ends_the_process() -> None:
    error = caught(in_a_child.hoard, memory_bytes=400_000_000)
    assert error.code == "process.memory"
    assert "more than 0.4 GB" in error.message


def test_a_time_limit_ends_the_process_and_the_next_call_gets_another() -> None:
    with isolated_process("testing", seconds=5.0) as process:
        with pytest.raises(ConversionError) as error:
            process.call(in_a_child.nap, 600.0)
        assert error.value.code == "process.time"
        assert "5 seconds" in error.value.message
        assert process.call(in_a_child.double, 2) == 4


def test_leaving_by_an_error_ends_what_runs_and_what_it_started() -> None:
    sleeper = 0
    with pytest.raises(KeyboardInterrupt), isolated_process("testing") as process:
        sleeper = process.call(in_a_child.start_sleeper)
        process.submit(in_a_child.nap, 600.0)
        time.sleep(0.2)
        raise KeyboardInterrupt
    psutil.wait_procs([psutil.Process(sleeper)] if psutil.pid_exists(sleeper) else [], timeout=5)
    assert not psutil.pid_exists(sleeper) or psutil.Process(sleeper).status() == psutil.STATUS_ZOMBIE


@posix
def test_a_child_ends_when_its_parent_is_killed() -> None:
    script = (
        "from conversions.isolated_process import isolated_process\n"
        "from tests.conversions import in_a_child\n"
        "with isolated_process('testing') as process:\n"
        "    print(process.call(in_a_child.pid), flush=True)\n"
        "    process.call(in_a_child.nap, 600.0)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    gone, _ = psutil.wait_procs([child], timeout=20)
    assert gone or child.status() == psutil.STATUS_ZOMBIE


def run_script(folder: Path, text: str) -> subprocess.CompletedProcess[str]:
    (folder / "script.py").write_text(text, "utf-8")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "script.py"], capture_output=True, text=True, cwd=folder, env=environment
    )


def test_a_script_without_a_main_guard_works(tmp_path: Path) -> None:
    done = run_script(
        tmp_path,
        "from conversions.isolated_process import isolated_process\n"
        "from tests.conversions import in_a_child\n"
        "print('once')\n"
        "with isolated_process('testing') as process:\n"
        "    print(process.call(in_a_child.double, 21))\n",
    )
    assert done.stdout.splitlines() == ["once", "42"]
    assert done.stderr == ""


def test_a_function_of_the_script_itself_is_refused_by_name(tmp_path: Path) -> None:
    done = run_script(
        tmp_path,
        "from conversions.errors import ConversionError\n"
        "from conversions.isolated_process import isolated_process\n"
        "def mine(): return 1\n"
        "try:\n"
        "    with isolated_process('testing') as process:\n"
        "        process.call(mine)\n"
        "except ConversionError as error:\n"
        "    print(error.code, error.message, error.hint)\n",
    )
    assert done.stdout.startswith("process.not_importable mine cannot run")
    assert "module of its own" in done.stdout


def test_a_kill_that_linux_counted_is_want_of_memory() -> None:
    error = explain("testing", ProcessEnd(returncode=-9, oom_kills=1, used_bytes=8 * 10**9, free_bytes=10**8))
    assert error.code == "process.memory"
    assert "8.0 GB" in error.message
    assert explain("testing", ProcessEnd(returncode=-11, oom_kills=1)).code == "process.died"


@pytest.mark.parametrize(
    ("status", "text"),
    [(0xC0000005, "access violation"), (0xC0000017, "STATUS_NO_MEMORY"), (0xC0001234, "0xC0001234")],
)
def test_statuses_of_windows_are_told_in_words(status: int, text: str) -> None:
    assert text in explain("testing", ProcessEnd(returncode=status)).message


def test_a_process_that_cannot_be_started_is_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(ROOT / "no" / "python"))
    error = caught(in_a_child.pid)
    assert error.code == "process.not_started"
    assert "cannot be started" in error.message
    assert error.hint

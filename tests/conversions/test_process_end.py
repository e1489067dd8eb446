"""Why a child process ended: word by word for each kind of end, and the kernel's counters from real files."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from conversions import process_end
from conversions.process_end import ProcessEnd, count_oom_kills, explain

REPEAT = "Run the same command again; if it dies again, please report it with this message."
CLOSE = "Close other programs and run the same command again."


def died(**known: Any) -> str:
    """Return how a process ended for which nothing better is known."""
    error = explain("tracing", ProcessEnd(**known))
    assert (error.code, error.hint) == ("process.died", REPEAT)
    assert error.message.startswith("The process for tracing died: ")
    return error.message.removeprefix("The process for tracing died: ")


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (None, "it ended with exit status 0."),
        (0, "it ended with exit status 0."),
        (3, "it ended with exit status 3."),
        (-9, "it was ended by signal 9 (SIGKILL) from outside."),
        (-15, "it was ended by signal 15 (SIGTERM) from outside."),
        (-2, "it was ended by signal 2 (SIGINT) from outside."),
        (-11, "it was ended by signal 11 (SIGSEGV)."),
        (-200, "it was ended by signal 200 (unknown)."),
        (0x40000005, "it ended with exit status 1073741829."),
        (0xC0000005, "it was ended by Windows for an access violation (0xC0000005)."),
        (0xC00000FD, "it was ended by Windows for a stack overflow (0xC00000FD)."),
        (0xC000001D, "it was ended by Windows for an illegal instruction (0xC000001D)."),
        (0xC0000135, "it was ended by Windows for a missing DLL (0xC0000135)."),
        (0xC000013A, "it was ended by Windows for Ctrl-C (0xC000013A)."),
        (0xC0000142, "it was ended by Windows for a DLL that could not be initialised (0xC0000142)."),
        (0xC0000409, "it was ended by Windows for a stack buffer overrun (0xC0000409)."),
        (0xC0000017, "it was ended by Windows for want of memory (STATUS_NO_MEMORY) (0xC0000017)."),
        (0xC0001234, "it was ended by Windows for an error (0xC0001234)."),
    ],
)
def test_an_exit_status_is_said_in_words(code: int | None, said: str) -> None:
    if code == -9 and sys.platform == "win32":
        pytest.skip("Windows has no such signal")
    assert died(returncode=code) == said


@pytest.mark.parametrize("code", [3, -11, 0xC0000005])
def test_last_words_are_quoted(code: int) -> None:
    said = died(returncode=code, stderr="first\n  the last one.  \n\n")
    assert said.endswith("; its last words were: the last one.")
    long = died(returncode=code, stderr="x" * 500)
    assert long.endswith(f": {'x' * 200}.")


def test_memory_is_told_where_both_sides_are_known() -> None:
    plain = "it ended with exit status 1."
    assert died(returncode=1, used_bytes=2_340_000_000, free_bytes=0) == (
        f"{plain} It used up to 2.3 GB; the machine had at least 0.0 GB free meanwhile."
    )
    assert died(returncode=1, used_bytes=2_000_000_000) == plain
    assert died(returncode=1, free_bytes=2_000_000_000) == plain
    assert died(returncode=1, used_bytes=0, free_bytes=1) == plain


def test_limits_of_its_own_come_first() -> None:
    error = explain("tracing", ProcessEnd(returncode=-9, time_limit_seconds=90.0, memory_limit_bytes=1))
    assert error.code == "process.time"
    assert error.message == "The process for tracing was ended after 90 seconds without a result."
    assert "config.json" in error.hint
    error = explain("tracing", ProcessEnd(returncode=-9, memory_limit_bytes=4_000_000_000, oom_kills=1))
    assert error.code == "process.memory"
    assert error.message == "The process for tracing was ended when it used more than 4.0 GB."
    assert "config.json" in error.hint


def test_want_of_memory_is_named_where_linux_counted_a_kill() -> None:
    error = explain("tracing", ProcessEnd(returncode=-9, oom_kills=1, used_bytes=10**9, free_bytes=10**8))
    assert (error.code, error.hint) == ("process.memory", CLOSE)
    assert error.message == (
        "The process for tracing died: it was ended by signal 9 (SIGKILL) while Linux counted a kill for "
        "want of memory. It used up to 1.0 GB; the machine had at least 0.1 GB free meanwhile."
    )
    assert explain("tracing", ProcessEnd(returncode=-11, oom_kills=1)).code == "process.died"
    assert explain("tracing", ProcessEnd(returncode=None, oom_kills=1)).code == "process.died"


@pytest.mark.parametrize(
    "line",
    [
        "MemoryError",
        "terminate called: std::bad_alloc",
        "DefaultCPUAllocator: not enough memory: you tried",
        "DefaultCPUAllocator: can't allocate memory",
        "OSError: [Errno 12] Cannot allocate memory",
    ],
)
def test_want_of_memory_is_named_where_the_process_said_so(line: str) -> None:
    error = explain("tracing", ProcessEnd(returncode=1, stderr=f"Traceback\n{line}.\n"))
    assert (error.code, error.hint) == ("process.memory", CLOSE)
    assert error.message == f"The process for tracing died: it ran out of memory: {line}."


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Files as Linux has them, empty at first."""
    for name, path in (("_CGROUP", "cgroup"), ("_CGROUPS", "groups"), ("_KERNEL", "vmstat")):
        monkeypatch.setattr(process_end, name, tmp_path / path)
    return tmp_path


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")


def test_a_system_that_counts_nothing_has_none(system: Path) -> None:
    assert count_oom_kills() == 0
    write(system / "vmstat", "pgfault 7\nsome_oom_kill 9\noom_kill_disable 3\n")
    write(system / "cgroup", "0::/none\n")
    assert count_oom_kills() == 0


@pytest.mark.skipif(sys.platform == "win32", reason="a colon in a name")
def test_kills_of_the_machine_and_of_the_groups_are_added(system: Path) -> None:
    write(system / "vmstat", "pgfault 7\noom_kill 100\nmore 1\n")
    assert count_oom_kills() == 100
    write(system / "cgroup", "0::/user/me:x\n")
    write(system / "groups/user/me:x/memory.events", "oom 50\noom_kill 20\n")
    assert count_oom_kills() == 120
    write(system / "groups/memory.events", "oom_kill 3\n")
    assert count_oom_kills() == 123


def test_the_older_groups_count_where_they_are_of_memory(system: Path) -> None:
    write(system / "cgroup", "5:cpu,memory:/a\n4:memory_other:/b\n3:cpu:/c\n")
    for name, count in (("a", 1), ("b", 10), ("c", 100)):
        write(system / f"groups/memory/{name}/memory.oom_control", f"under_oom 0\noom_kill {count}\n")
    assert count_oom_kills() == 1
    write(system / "groups/memory/memory.oom_control", "oom_kill 1000\n")
    assert count_oom_kills() == 1001


def test_the_root_group_is_counted_once(system: Path) -> None:
    write(system / "cgroup", "0::/\n1:memory:/\n")
    write(system / "groups/memory.events", "oom_kill 2\n")
    write(system / "groups/memory/memory.oom_control", "oom_kill 5\n")
    assert count_oom_kills() == 7

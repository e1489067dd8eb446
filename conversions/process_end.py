"""Why a child process ended, from what is known: limits, exit status, signal, the kernel's counters.

Nothing is guessed: want of memory is named only when the kernel counted a kill for want of memory, the
process said so itself, or its own limit was passed.
"""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass
from pathlib import Path

from conversions.errors import ConversionError

# Source: NTSTATUS values, [MS-ERREF] 2.3.1.
_WINDOWS_STATUS = {
    0xC0000005: "an access violation",
    0xC0000017: "want of memory (STATUS_NO_MEMORY)",
    0xC000001D: "an illegal instruction",
    0xC00000FD: "a stack overflow",
    0xC0000135: "a missing DLL",
    0xC000013A: "Ctrl-C",
    0xC0000142: "a DLL that could not be initialised",
    0xC0000409: "a stack buffer overrun",
}
_SAID_NO_MEMORY = re.compile(
    r"MemoryError|bad_alloc|not enough memory|can't allocate memory|Cannot allocate memory"
)
_CGROUP = Path("/proc/self/cgroup")
_CGROUPS = Path("/sys/fs/cgroup")
_KERNEL = Path("/proc/vmstat")


@dataclass(frozen=True, kw_only=True)
class ProcessEnd:
    """What is known of a process that ended.

    Attributes:
        returncode: Exit status; negative for a signal; None while it runs.
        used_bytes: The most memory that it was seen to use.
        free_bytes: The least memory that the machine was seen to have free meanwhile.
        oom_kills: Kills for want of memory that Linux counted meanwhile.
        memory_limit_bytes: The limit for which it was ended, if it was.
        time_limit_seconds: The limit for which it was ended, if it was.
        stderr: The end of what it wrote there.
    """

    returncode: int | None
    used_bytes: int | None = None
    free_bytes: int | None = None
    oom_kills: int = 0
    memory_limit_bytes: int | None = None
    time_limit_seconds: float | None = None
    stderr: str = ""


def explain(purpose: str, end: ProcessEnd) -> ConversionError:
    """Say why a process ended.

    Args:
        purpose: What it was for, as a person would say it.
        end: What is known.

    Returns:
        ``process.time`` or ``process.memory`` for its own limits and for what the kernel counted, else
        ``process.died``.
    """
    process = f"The process for {purpose}"
    if end.time_limit_seconds is not None:
        return ConversionError(
            "process.time",
            f"{process} was ended after {end.time_limit_seconds:g} seconds without a result.",
            "Check the sizes in the model's config.json; if they are right, please report it.",
        )
    if end.memory_limit_bytes is not None:
        return ConversionError(
            "process.memory",
            f"{process} was ended when it used more than {_gigabytes(end.memory_limit_bytes)}.",
            "Check the sizes in the model's config.json; close other programs if the model is that large.",
        )
    by_kernel = end.returncode == -9 and end.oom_kills > 0
    if by_kernel or _SAID_NO_MEMORY.search(end.stderr):
        who = f"it ran out of memory: {_last_line(end)}"
        if by_kernel:
            who = "it was ended by signal 9 (SIGKILL) while Linux counted a kill for want of memory"
        return ConversionError(
            "process.memory",
            f"{process} died: {who}.{_memory(end)}",
            "Close other programs and run the same command again.",
        )
    return ConversionError(
        "process.died",
        f"{process} died: {_status(end)}.{_memory(end)}",
        "Run the same command again; if it dies again, please report it with this message.",
    )


def _status(end: ProcessEnd) -> str:
    code = end.returncode or 0
    last = _last_line(end)
    said = f"; its last words were: {last}" if last else ""
    if code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = "unknown"
        sender = " from outside" if name in ("SIGKILL", "SIGTERM", "SIGINT", "SIGHUP") else ""
        return f"it was ended by signal {-code} ({name}){sender}{said}"
    if code & 0xC0000000 == 0xC0000000:
        return f"it was ended by Windows for {_WINDOWS_STATUS.get(code, 'an error')} (0x{code:08X}){said}"
    return f"it ended with exit status {code}{said}"


def _memory(end: ProcessEnd) -> str:
    if not end.used_bytes or end.free_bytes is None:
        return ""
    return (
        f" It used up to {_gigabytes(end.used_bytes)}; "
        f"the machine had at least {_gigabytes(end.free_bytes)} free meanwhile."
    )


def _last_line(end: ProcessEnd) -> str:
    lines = [line.strip() for line in end.stderr.splitlines() if line.strip()]
    return lines[-1][:200].rstrip(".") if lines else ""


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB"


def count_oom_kills() -> int:
    """Count the kills for want of memory so far: this process's control group's and the machine's.

    Returns:
        A number of which only the growth means something; 0 where the system counts none.
        Source: Linux's Documentation/admin-guide/cgroup-v2.rst (memory.events) and proc's vmstat.
    """
    return sum(_counter(path) for path in {_KERNEL, *_events_of_groups()})


def _events_of_groups() -> list[Path]:
    try:
        lines = _CGROUP.read_text().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if not controllers:
            found.append(_CGROUPS / group.lstrip("/") / "memory.events")
            found.append(_CGROUPS / "memory.events")
        elif "memory" in controllers.split(","):
            found.append(_CGROUPS / "memory" / group.lstrip("/") / "memory.oom_control")
            found.append(_CGROUPS / "memory" / "memory.oom_control")
    return found


def _counter(path: Path) -> int:
    try:
        match = re.search(r"^oom_kill (\d+)$", path.read_text(), re.MULTILINE)
    except OSError:
        return 0
    return int(match[1]) if match else 0

"""Check that what needs much main memory can have it on this machine."""

from __future__ import annotations

import psutil

from sdsetup.disk_space import human_size
from sdsetup.errors import SetupError


def require_for_verification(needed_bytes: int) -> None:
    """Check that a comparison with a reference fits into main memory and swap together.

    Args:
        needed_bytes: Its peak.

    Raises:
        SetupError: ``verify.memory``: the system would end the process in the middle.
    """
    memory, swap = psutil.virtual_memory().total, _swap_bytes()
    if needed_bytes > memory + swap:
        raise SetupError(
            "verify.memory",
            f"comparing the package with a reference takes about {human_size(needed_bytes)} of main memory; "
            f"this machine has {human_size(memory)}{f', and {human_size(swap)} of swap' if swap else ''}.",
            "add --no-verify, and run sdsetup verify on a larger machine; or add swap.",
        )


def _swap_bytes() -> int:
    try:
        return int(psutil.swap_memory().total)
    except (RuntimeError, OSError):  # on Windows, where performance counters are turned off
        return int(psutil.virtual_memory().total)  # Windows lets its page file grow

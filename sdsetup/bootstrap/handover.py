"""Continue a command with another Python than the one that runs.

Standard library only.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sdsetup.bootstrap import child_environment, places

# Names the environment that the process which handed over has made ready, its plan agreed to.
_PREPARED = "SDSETUP_PREPARED"


def base_python() -> str:
    """Name the Python that the running environment was made of, or the running one.

    An environment that is made from an environment breaks with the first one.
    """
    return getattr(sys, "_base_executable", None) or sys.executable


def start_outside(arguments: Sequence[str]) -> None:
    """Start sdsetup with the Python that the running environment was made of, and do not wait for it."""
    variables = child_environment.for_python(str(Path(__file__).resolve().parents[2]))
    subprocess.Popen([base_python(), "-m", "sdsetup", *arguments], env=variables)


def for_prepared(environment: Path) -> dict[str, str]:
    """Give the variables for sdsetup in an environment that needs no second look."""
    source = places.checkout()
    variables = child_environment.for_python(str(source) if source is not None else "")
    return variables | {_PREPARED: str(environment)}


def was_prepared(environment: Path) -> bool:
    """Tell, once, whether the process that started this one has made the environment ready."""
    return os.environ.pop(_PREPARED, "") == str(environment)


def go_on(python: Path, arguments: Sequence[str], *, prepared: Path | None = None) -> int:
    """Continue with another Python: ``python arguments``; on POSIX in this very process.

    Args:
        python: The other Python.
        arguments: What follows it.
        prepared: Its environment, where that is ready and needs no second look.

    Returns:
        The exit status.
    """
    argv = [str(python), *arguments]
    source = places.checkout()
    if prepared is not None:
        variables = for_prepared(prepared)
    else:
        variables = child_environment.for_python(str(source) if source is not None else "")
    if sys.platform != "win32":
        sys.stderr.flush()
        os.execve(argv[0], argv, variables)  # noqa: S606 - no shell is the point
    # Windows has no exec. Ctrl-C reaches both processes; the child decides what it means.
    before: Callable[..., Any] | int | None = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        return subprocess.run(argv, env=variables, check=False).returncode
    finally:
        signal.signal(signal.SIGINT, before)

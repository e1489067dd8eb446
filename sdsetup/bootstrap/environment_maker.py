"""From a bare CPython to an environment that has everything, and on with the same command in it.

Standard library only. A stamp in the environment says what it was made from and what it holds, so that a
second run costs a directory listing.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from sdsetup import __version__
from sdsetup.bootstrap import installer, known_good, lock
from sdsetup.bootstrap.console import Steps, say
from sdsetup.bootstrap.installer import Flavour, InstallAction, Wanted
from sdsetup.errors import SetupError

_HERE = Path(__file__).resolve().parents[2]
_STAMP = "sdsetup-install.json"
_LOG = "sdsetup-install.log"

# A finished environment with the CPU builds of everything takes 1.6 GB; pip unpacks beside it.
_SPACE_NEEDED_BYTES = 2_500_000_000


def checkout() -> Path | None:
    """Find the folder of the source tree this code runs from; None when it was installed as a wheel."""
    project = _HERE / "pyproject.toml"
    try:
        named = tomllib.loads(project.read_text(encoding="utf-8"))["project"]["name"]
    except (OSError, KeyError, tomllib.TOMLDecodeError):
        return None
    return _HERE if named == "sdsetup" else None


def environment_folder() -> Path:
    """Say where the environment is, or would be.

    That is the virtual environment this process runs in when sdsetup was installed there; else ``.venv``
    beside pyproject.toml; else a folder of the user's.
    """
    here = Path(sys.prefix)
    if sys.prefix != sys.base_prefix and "sdsetup" in _names(here):
        return here
    source = checkout()
    if source is not None:
        return source / ".venv"
    return _data_folder() / "venv"


def _data_folder() -> Path:
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "sdsetup"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "sdsetup"
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "sdsetup"


def python_of(environment: Path) -> Path:
    """Name the Python of an environment."""
    if sys.platform == "win32":
        return environment / "Scripts" / "python.exe"
    return environment / "bin" / "python"


def inside(environment: Path) -> bool:
    """Tell whether this process runs in the environment."""
    return Path(sys.prefix).resolve() == environment.resolve()


def wanted_here(
    flavour: Flavour, *, extras: Sequence[str] = ("convert",), groups: Sequence[str] = ()
) -> Wanted:
    """Say what the environment of this copy of the project is to hold."""
    source = checkout()
    return Wanted(
        requirement=str(source) if source is not None else f"sdsetup=={__version__}",
        editable=source is not None,
        flavour=flavour,
        extras=tuple(extras),
        groups=tuple(groups),
    )


def is_ready(environment: Path, wanted: Wanted) -> bool:
    """Tell in milliseconds whether the environment still holds what is wanted."""
    stamp = _read_stamp(environment)
    return (
        stamp.get("fingerprint") == _fingerprint(wanted)
        and set(wanted.extras) <= set(stamp.get("extras", ()))
        and set(wanted.groups) <= set(stamp.get("groups", ()))
        and set(stamp.get("distributions", ("?",))) <= _distributions(environment)
        and python_of(environment).exists()
    )


def state(environment: Path) -> Literal["absent", "broken", "unfinished", "ready"]:
    """Tell how the environment looks without starting anything in it."""
    if not environment.exists():
        return "absent"
    if not python_of(environment).exists():  # also when its base Python is gone: the link leads nowhere
        return "broken"
    stamp = _read_stamp(environment)
    if set(stamp.get("distributions", ("?",))) <= _distributions(environment):
        return "ready"
    return "unfinished"


def prepare(environment: Path, wanted: Wanted) -> None:
    """Make the environment, or bring it up to date; does nothing when it is ready.

    Of several processes one works at a time; what it made, the next ones find ready.

    Raises:
        SetupError: A step failed, and why.
    """
    if is_ready(environment, wanted):
        return

    def tell() -> None:
        say(f"Another sdsetup is setting up {environment}; waiting for it to end")

    # Beside the environment: what makes one anew empties its folder.
    with lock.alone(environment.with_name(f"{environment.name}.lock"), tell):
        if not is_ready(environment, wanted):
            _prepare_alone(environment, wanted)


def _prepare_alone(environment: Path, wanted: Wanted) -> None:
    stamp = _read_stamp(environment)
    # What another command put there stays: `install` after `python -m tests` keeps pytest.
    wanted = replace(
        wanted,
        extras=tuple(dict.fromkeys((*wanted.extras, *stamp.get("extras", ())))),
        groups=tuple(dict.fromkeys((*wanted.groups, *stamp.get("groups", ())))),
    )
    steps = Steps(f"Setting up {environment}")
    _require_space(environment)
    making = _environment_actions(environment, ours=bool(stamp))
    for action in making:
        _run(steps, action, None)
    log = environment / _LOG
    log.unlink(missing_ok=True)
    (environment / _STAMP).unlink(missing_ok=True)
    for action in installer.install_actions(python_of(environment), wanted, _names(environment)):
        _run(steps, action, log)
    _write_stamp(environment, wanted)
    steps.end("ready")


def _run(steps: Steps, action: InstallAction, log: Path | None) -> None:
    with steps.step(action.label) as on_line:
        installer.run(action, on_line, log)


def _environment_actions(environment: Path, *, ours: bool) -> list[InstallAction]:
    """List what makes the environment; empty when a usable one is there."""
    python = python_of(environment)
    clear: tuple[str, ...] = ()
    if environment.exists():
        version = _version_of(python)
        if version is not None and (3, 11) <= version < (3, 14):
            return []
        if not ours and any(environment.iterdir()):
            raise SetupError(
                "install.environment",
                f"{environment} is there, was not made by sdsetup, and has no working Python 3.11 to 3.13.",
                f"move it away or delete it, then run the same command again: {environment}",
            )
        clear = ("--clear",)
    return [
        InstallAction(
            label=f"making an environment with Python {sys.version_info.major}.{sys.version_info.minor}",
            argv=(_base_python(), "-m", "venv", *clear, str(environment)),
        )
    ]


def _base_python() -> str:
    # In an environment, its base: an environment made from an environment breaks with the first one.
    return getattr(sys, "_base_executable", None) or sys.executable


def _version_of(python: Path) -> tuple[int, int] | None:
    ask = "import sys; print(*sys.version_info[:2])"
    try:
        answer = subprocess.run(
            [str(python), "-c", ask],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
            stdin=subprocess.DEVNULL,
        )
        major, minor = answer.stdout.split()
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return int(major), int(minor)


def _require_space(environment: Path) -> None:
    if _distributions(environment):
        return
    folder = next(parent for parent in environment.resolve().parents if parent.exists())
    free = shutil.disk_usage(folder).free
    if free < _SPACE_NEEDED_BYTES:
        raise SetupError(
            "install.disk",
            f"{folder} has {free / 1e9:.1f} GB free; setting up needs {_SPACE_NEEDED_BYTES / 1e9:.1f} GB.",
            "free some space, then run the same command again.",
        )


def _fingerprint(wanted: Wanted) -> str:
    """Digest everything that decides what pip would install."""
    digest = hashlib.sha256(known_good.CONSTRAINTS.read_bytes())
    digest.update(f"{wanted.requirement}\n{wanted.flavour}\n{sys.version_info[:2]}\n".encode())
    if wanted.editable:
        project = tomllib.loads((Path(wanted.requirement) / "pyproject.toml").read_text(encoding="utf-8"))
        deciding = {name: project.get(name) for name in ("build-system", "project", "dependency-groups")}
        digest.update(json.dumps(deciding, sort_keys=True).encode())
    return digest.hexdigest()


def _read_stamp(environment: Path) -> dict[str, Any]:
    try:
        stamp = json.loads((environment / _STAMP).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def _write_stamp(environment: Path, wanted: Wanted) -> None:
    stamp = {
        "fingerprint": _fingerprint(wanted),
        "extras": wanted.extras,
        "groups": wanted.groups,
        "distributions": sorted(_distributions(environment)),
    }
    (environment / _STAMP).write_text(json.dumps(stamp, indent=1), encoding="utf-8")


def _distributions(environment: Path) -> set[str]:
    """List the names of the environment's ``*.dist-info`` folders."""
    pattern = "Lib/site-packages" if sys.platform == "win32" else "lib/python3.*/site-packages"
    return {folder.name for site in environment.glob(pattern) for folder in site.glob("*.dist-info")}


def _names(environment: Path) -> list[str]:
    """List the normalized names of the distributions that the environment holds."""
    return [known_good.normalized(name.partition("-")[0]) for name in _distributions(environment)]


def go_on(python: Path, arguments: Sequence[str]) -> int:
    """Continue with another Python: ``python arguments``; on POSIX in this very process.

    Returns:
        The exit status.
    """
    argv = [str(python), *arguments]
    if sys.platform != "win32":
        sys.stderr.flush()
        os.execv(argv[0], argv)  # noqa: S606 - no shell is the point
    # Windows has no exec. Ctrl-C reaches both processes; the child decides what it means.
    before: Callable[..., Any] | int | None = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        return subprocess.run(argv, check=False).returncode
    finally:
        signal.signal(signal.SIGINT, before)

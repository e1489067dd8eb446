"""Take away what sdsetup installed, and leave what the person made: packages, images, downloaded models.

Standard library only: it also runs where the packages are broken.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdsetup.bootstrap import console, environment_maker, handover, lock, on_path, places
from sdsetup.bootstrap.console import say
from sdsetup.errors import SetupError

_PATIENCE_SECONDS = 20.0


@dataclass(frozen=True, kw_only=True)
class Removal:
    """What an uninstallation takes away.

    Attributes:
        folders: What goes, and what it is in words.
        locks: Locks of the environments among them; they go last, while they are held.
        own_environment: The environment was made by somebody else, who removes it; None where it goes too.
    """

    folders: dict[Path, str]
    locks: tuple[Path, ...]
    own_environment: Path | None


def plan() -> Removal:
    """Look what there is to remove."""
    environment = places.environment_folder()
    folders: dict[Path, str] = {}
    foreign = None
    made_beside = environment == _beside_the_source() and environment_maker.is_own(environment)
    if environment.exists() and (made_beside or environment == places.data_folder() / "venv"):
        folders[environment] = "the environment, with all packages of Python in it"
    elif environment.exists() and "sdsetup" in places.distributions(environment):
        foreign = environment
    locks: tuple[Path, ...] = ()
    if foreign is None:
        folders |= _kept_by_installations()
        own = dict.fromkeys((environment, places.data_folder() / "venv"))
        locks = tuple(filter(Path.exists, map(lock.of_environment, own)))
    if cache_folder().is_dir():
        folders[cache_folder()] = "traced graphs and other copies that are made anew when needed"
    return Removal(folders=folders, locks=locks, own_environment=foreign)


def _kept_by_installations() -> dict[Path, str]:
    """List what installations put into the user's data folder.

    The folder itself is not among it: images that could be written nowhere else are there too.
    """
    data = places.data_folder()
    own = {
        data / "venv": "the environment, with all packages of Python in it",
        data / "bin": "the command",
        data / "Logs": "logs of errors",
    }
    own |= dict.fromkeys(sorted(data.glob("sdsetup-*.whl")), "the program, as it was installed")
    return {path: what for path, what in own.items() if os.path.lexists(path)}


def cache_folder() -> Path:
    """Name the user's folder of caches; as ``platformdirs`` has it, which is not there on a bare Python."""
    if sys.platform == "win32":
        return places.data_folder() / "Cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "sdsetup"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sdsetup"


def run(*, yes: bool, dry_run: bool) -> int:
    """Show what goes and what stays, ask once, and remove it.

    Args:
        yes: The person said yes beforehand.
        dry_run: Only show it.

    Returns:
        The exit status.

    Raises:
        SetupError: ``uninstall.in-use``: a file is in use, or may not be removed.
    """
    removal = plan()
    if not removal.folders and not removal.locks and removal.own_environment is None:
        say("Nothing of sdsetup is installed here.")
        return 0
    say("sdsetup uninstall removes:")
    for path, what in removal.folders.items():
        say(f"  {path}: {what} ({_size(path) / 1e6:.0f} MB)")
    say("  the command's link, and its line in your shell's start files, where sdsetup wrote them")
    say("It leaves packages, images, models in the Hugging Face cache, and its login.")
    if dry_run:
        return 0
    if not console.ask("Remove that?", yes=yes):
        say("Nothing was removed.")
        return 1
    own = removal.own_environment is None
    if sys.platform == "win32" and own and places.inside(places.environment_folder()):
        # Windows removes no program that runs: the Python that stays goes on, once this one has ended.
        handover.start_outside(["uninstall", "--yes"])
        return 0
    with contextlib.ExitStack() as held:
        for path in removal.locks:
            held.enter_context(lock.alone(path, _tell_of_another, remove=True))
        removal = plan()  # what another process, waited for, has changed
        for done in on_path.remove():
            say(f"removed {done}")
        for path in removal.folders:
            with console.waiting(f"removing {path}"):
                _remove(path)
            say(f"removed {path}")
    with contextlib.suppress(OSError):  # what somebody else put there stays
        places.data_folder().rmdir()
    if removal.own_environment is not None:
        say(f"{removal.own_environment} is not sdsetup's own; remove sdsetup from it as it was put there:")
        say(f"next: {_how(removal.own_environment)}")
    return 0


def _tell_of_another() -> None:
    say("Another sdsetup is installing here; waiting for it to end")


def _beside_the_source() -> Path | None:
    source = places.checkout()
    return None if source is None else source / ".venv"


def _how(environment: Path) -> str:
    if (environment / "uv-receipt.toml").is_file():
        return "uv tool uninstall sdsetup"
    if (environment / "pipx_metadata.json").is_file():
        return "pipx uninstall sdsetup"
    return f"{places.python_of(environment)} -m pip uninstall sdsetup"


def _size(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    return sum(
        entry.stat(follow_symlinks=False).st_size
        for folder, _, names in os.walk(path)
        for name in names
        if (entry := Path(folder) / name).is_file() or entry.is_symlink()
    )


def _remove(path: Path) -> None:
    def again(function: Callable[..., Any], name: str, error: BaseException) -> None:
        if isinstance(error, FileNotFoundError):  # gone meanwhile
            return
        if function not in {os.unlink, os.remove, os.rmdir}:
            raise error
        Path(name).chmod(stat.S_IWRITE)  # Windows does not remove what is read-only
        function(name)

    def remove() -> None:
        if path.is_dir() and not path.is_symlink():
            if sys.version_info >= (3, 12):
                shutil.rmtree(path, onexc=again)
            else:
                shutil.rmtree(path, onerror=lambda function, name, info: again(function, name, info[1]))
        elif os.path.lexists(path):
            path.unlink()

    try:
        _patiently(remove)
    except FileNotFoundError:
        return
    except OSError as error:
        raise SetupError(
            "uninstall.in-use",
            f"{error.filename or path} could not be removed: {error.strerror or error}.",
            "close programs that use it, then run the same command again.",
        ) from error


def _patiently(remove: Callable[[], None]) -> None:
    """Try again for a while: on Windows the process that asked for this may still be ending."""
    until = time.monotonic() + (_PATIENCE_SECONDS if sys.platform == "win32" else 0)
    while True:
        try:
            return remove()
        except PermissionError:
            if time.monotonic() >= until:
                raise
        time.sleep(0.2)

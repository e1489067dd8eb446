"""Bring sdsetup to the newest release with the versions that were tested with it, and back again.

Before anything changes, the version and every package's are written down beside the environment's stamp, and
sdsetup's own wheel is kept: going back asks no index for an old sdsetup.

Standard library only.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from sdsetup import __version__
from sdsetup.bootstrap import (
    child_environment,
    environment_maker,
    handover,
    installer,
    integrity,
    known_good,
    lock,
    own_wheel,
    places,
    torch_source,
)
from sdsetup.bootstrap.action import InstallAction, run
from sdsetup.bootstrap.command_name import typed
from sdsetup.bootstrap.console import Steps, say
from sdsetup.bootstrap.interpreter import look_at
from sdsetup.errors import SetupError

_BEFORE = "sdsetup-before-update"


def run_here_or_there(environment: Path, *, go_back: bool) -> int:
    """Update or go back, from the environment itself or, as ``uvx`` starts it, from outside.

    Args:
        environment: The environment that ``install`` made or would make.
        go_back: Whether to go back rather than update.

    Returns:
        The exit status.

    Raises:
        SetupError: ``update.checkout``: sdsetup runs from its sources. ``update.not-installed``: nothing is
            installed. A step failed, and why.
    """
    _demand_installed()
    if places.inside(environment):
        if go_back:
            back(environment)
        else:
            update(environment)
        return 0
    python = places.python_of(environment)
    if "sdsetup" not in places.distributions(environment) or not look_at(python).fits:
        raise SetupError(
            "update.not-installed",
            f"There is no installation in {environment} yet, and this sdsetup runs from {Path(sys.prefix)}.",
            "uvx sdsetup install, or pipx run sdsetup install, makes one that stays.",
        )
    # Its own copy is what is replaced, and must be what goes back.
    return handover.go_on(python, ["-I", "-m", "sdsetup", "update", *(("--back",) if go_back else ())])


def update(environment: Path) -> None:
    """Install the newest sdsetup; its own ``install`` then brings the versions that it was tested with.

    Args:
        environment: The environment that this process runs in.

    Raises:
        SetupError: A step failed, and why.
    """
    with _written_down(environment):
        _update(environment, places.python_of(environment))


def _update(environment: Path, python: Path) -> None:
    label = "looking for a newer sdsetup"
    # What pip alone has set up, the newer sdsetup leaves to pip: it knows neither flavour nor extras there.
    own = ("--no-deps",) if environment_maker.was_made(environment) else ()
    argv = _pip(python, "install", "--upgrade", "--upgrade-strategy", "only-if-needed", *own, "sdsetup")
    _change(environment, f"Updating {environment}", InstallAction(label=label, argv=argv))
    # The new copy knows which versions it was tested with; this process still is the old one.
    renewed = subprocess.run(
        [str(python), "-P", "-m", "sdsetup.bootstrap.environment_maker"],
        env=child_environment.for_python(),
        check=False,
    )
    if renewed.returncode:
        raise SetupError(
            "update.unfinished",
            "The newer sdsetup is there, its packages are not.",
            "sdsetup install goes on; sdsetup update --back brings the former back.",
        )
    now = _versions(environment).get("sdsetup", __version__)
    if now == __version__:
        say(f"sdsetup {now} is the newest.")
    else:
        say(f"sdsetup {__version__} became {now}. Back again: {typed()} update --back")


@contextmanager
def _written_down(environment: Path) -> Iterator[None]:
    """Write down what there is while the block changes it; where nothing changed, the former record stays."""
    kept, former = environment / _BEFORE, environment / f"{_BEFORE}.former"
    if kept.exists() and not former.exists():  # where both exist, an update was killed
        kept.rename(former)
    shutil.rmtree(kept, ignore_errors=True)
    packages = _versions(environment)
    try:
        wheel = own_wheel.write(kept)
        before = {"sdsetup": __version__, "wheel": wheel.name, "packages": packages}
        partial = kept / "versions.json.partial"
        partial.write_text(json.dumps(before, indent=1), encoding="utf-8")
        partial.replace(kept / "versions.json")
        yield
    finally:
        if _versions(environment) != packages:
            shutil.rmtree(former, ignore_errors=True)
        else:
            shutil.rmtree(kept, ignore_errors=True)
            if former.exists():
                former.rename(kept)


def back(environment: Path) -> None:
    """Bring back what was there before the last update.

    Args:
        environment: The environment that this process runs in.

    Raises:
        SetupError: ``update.nothing-before``: there was none. A step failed, and why.
    """
    kept = environment / _BEFORE
    try:
        before = json.loads((kept / "versions.json").read_text(encoding="utf-8"))
        versions = {str(name): str(version) for name, version in before["packages"].items()}
        wheel = kept / str(before["wheel"])
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise SetupError(
            "update.nothing-before",
            f"{environment} was not updated yet, so there is nothing to go back to.",
            "to update: sdsetup update",
        ) from error
    python, now = places.python_of(environment), _versions(environment)
    changed = [f"{name}=={version}" for name, version in versions.items() if now.get(name) != version]
    changed = [each for each in changed if not each.startswith(("sdsetup==", "pip=="))]
    label = f"bringing back sdsetup {before['sdsetup']} and {len(changed)} packages"
    wanted = (*_index_of(changed), str(wheel), *changed)
    argv = _pip(python, "install", "--no-deps", "--force-reinstall", *wanted)
    _change(environment, f"Going back in {environment}", InstallAction(label=label, argv=argv))
    environment_maker.forget_stamp(environment)
    say(f"sdsetup is {before['sdsetup']} again.")


def _change(environment: Path, title: str, action: InstallAction) -> None:
    """Run an action of pip's while no other process changes the environment; uv makes some without pip."""
    python = places.python_of(environment)
    tell = environment_maker.tell_of_another
    with lock.alone(lock.of_environment(environment), lambda: tell(environment)):
        steps = Steps(title)
        missing = [] if child_environment.pip_works(str(python)) else installer.restore_pip(python)
        for each in (*missing, action):
            with steps.step(each.label) as on_line:
                run(each, on_line)


def _index_of(requirements: Sequence[str]) -> tuple[str, ...]:
    """Name the index of PyTorch's CPU builds where one of them comes back: PyPI has none."""
    if not any(each.startswith("torch==") and each.endswith("+cpu") for each in requirements):
        return ()
    return "--extra-index-url", os.environ.get(torch_source.INDEX_VARIABLE) or torch_source.CPU_INDEX


def _demand_installed() -> None:
    source = places.checkout()
    if source is not None:
        raise SetupError(
            "update.checkout",
            f"This sdsetup runs from its sources in {source}, which git updates.",
            "git pull, then python -m sdsetup install; back again with git checkout and the same.",
        )


def _versions(environment: Path) -> dict[str, str]:
    site = look_at(places.python_of(environment)).site
    infos = integrity.installed(site) if site is not None else {}
    return {known_good.normalized(name): integrity.version(folders[0]) for name, folders in infos.items()}


def _pip(python: Path, *arguments: str | Sequence[str]) -> tuple[str, ...]:
    return (str(python), "-m", "pip", "--disable-pip-version-check", "--no-input", *map(str, arguments))

"""From a bare CPython to an environment that has everything, and on with the same command in it.

Standard library only. A stamp in the environment says what it was made from and what it holds, so that a
second run costs a directory listing.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from sdsetup import __version__
from sdsetup.bootstrap import (
    child_environment,
    command_name,
    handover,
    install_plan,
    installer,
    integrity,
    known_good,
    lock,
    own_wheel,
    places,
    torch_source,
)
from sdsetup.bootstrap.action import InstallAction, run
from sdsetup.bootstrap.child_environment import PipSettings
from sdsetup.bootstrap.console import Steps, complain, say, say_folded, waiting
from sdsetup.bootstrap.installer import Flavour, Wanted
from sdsetup.bootstrap.interpreter import look_at
from sdsetup.bootstrap.torch_source import TorchSource
from sdsetup.errors import SetupError

_STAMP = "sdsetup-install.json"
_LOG = "sdsetup-install.log"


def wanted_here(
    flavour: Flavour,
    *,
    extras: Sequence[str] = ("convert",),
    groups: Sequence[str] = (),
    torch_required: bool = False,
    wheel: Path | None = None,
) -> Wanted:
    """Say what the environment of this copy of the project is to hold.

    Args:
        flavour: Which ONNX Runtime.
        extras: Extras of the project besides the flavour.
        groups: Dependency groups of the checkout's pyproject.toml.
        torch_required: Whether it is an error when no torch for this machine can be had.
        wheel: The wheel of sdsetup to install; None takes this copy.
    """
    source = places.checkout() if wheel is None else None
    return Wanted(
        requirement=_requirement(source) if wheel is None else str(wheel),
        torch_required=torch_required,
        editable=source is not None,
        flavour=flavour,
        extras=tuple(extras),
        groups=tuple(groups),
    )


def _requirement(source: Path | None) -> str:
    """Name this copy of the project as pip installs it into the environment."""
    if source is not None:
        return str(source)
    if places.inside(places.environment_folder()):
        return f"sdsetup=={__version__}"
    # Not by name: no index needs to have it, and what one has under this version may be another. It is
    # written when the environment is prepared.
    return str(own_wheel.place(places.data_folder()))


def was_made(environment: Path) -> bool:
    """Tell whether sdsetup set the environment up, wholly or in part."""
    return bool(_read_stamp(environment))


def is_own(environment: Path) -> bool:
    """Tell whether sdsetup made the environment, rather than completing one that was there."""
    stamp = _read_stamp(environment)
    return bool(stamp) and not stamp.get("found_there", False)


def was_lean(environment: Path) -> bool:
    """Tell whether torch was left out of the environment by choice."""
    return bool(_read_stamp(environment).get("lean", False))


def forget_stamp(environment: Path) -> None:
    """Let the next ``install`` look at every package again."""
    stamp = {**_read_stamp(environment), "unfinished": True}
    stamp.pop("fingerprint", None)
    (environment / _STAMP).write_text(json.dumps(stamp), encoding="utf-8")


def renew(environment: Path) -> None:
    """Bring a made environment to the versions of this copy of sdsetup, with what it holds.

    One that ``install`` has not been to yet is left to it.

    Raises:
        SetupError: A step failed, and why.
    """
    stamp = _read_stamp(environment)
    if not stamp:
        return
    extras = tuple(stamp.get("extras", () if stamp.get("lean") else ("convert",)))
    flavour = installer.flavour_for(sys.platform, stamp.get("flavour"))
    prepare(environment, wanted_here(flavour, extras=extras))


def fault(environment: Path) -> SetupError | None:
    """Say why an environment's folder can be neither used nor made anew; None when it can.

    What sdsetup made itself, it makes anew; what somebody else made is left alone.
    """
    if not os.path.lexists(environment):
        return None
    if not environment.is_dir():
        reason = "and is no folder"
    elif _read_stamp(environment) or not any(environment.iterdir()):
        return None
    else:
        found = look_at(places.python_of(environment))
        if found.fits:
            return None
        reason = f"and {found.fault}"
    return SetupError(
        "install.environment",
        f"{environment} is there, was not made by sdsetup, {reason}.",
        f"move it away or delete it, then run `{command_name.typed()} install`: {environment}",
    )


def is_ready(environment: Path, wanted: Wanted) -> bool:
    """Tell in a second whether the environment still holds what is wanted, whole."""
    stamp = _read_stamp(environment)
    if (
        stamp.get("fingerprint") != _fingerprint(wanted)
        or not set(wanted.extras) <= set(stamp.get("extras", ()))
        or not set(wanted.groups) <= set(stamp.get("groups", ()))
    ):
        return False
    found = look_at(places.python_of(environment))
    if not found.fits or found.site is None:
        return False
    return set(stamp.get("distributions", ("?",))) <= _distributions(found.site) and not _torn(
        found.site, stamp
    )


def lacks_torch_alone(environment: Path, wanted: Wanted) -> bool:
    """Tell whether all that is wanted is there but torch, which cannot be had still; looks for it.

    Raises:
        SetupError: ``install.no-torch``: torch is required.
    """
    lean = _without_torch(wanted)
    return lean != wanted and is_ready(environment, lean) and _torch_is_still_left_out(environment, wanted)


def _torn(site: Path, stamp: Mapping[str, Any]) -> dict[str, str]:
    """Find what is not whole among what sdsetup installs; other packages in there are their owner's."""
    ours = {known_good.normalized(name.partition("-")[0]) for name in stamp.get("distributions", ())}
    ours |= known_good.versions().keys() | set(installer.FLAVOUR_DISTRIBUTIONS.values()) | {"sdsetup"}
    return {name: what for name, what in integrity.torn(site).items() if name in ours}


State = Literal["absent", "broken", "unusable", "unfinished", "ready"]


def state(environment: Path) -> State:
    """Tell how the environment looks: its Python is asked, files are listed."""
    if not os.path.lexists(environment):
        return "absent"
    if not places.python_of(environment).exists():  # or leads nowhere: its base is gone
        return "broken"
    found = look_at(places.python_of(environment))
    if not found.fits or found.site is None:
        return "unusable"
    stamp = _read_stamp(environment)
    if set(stamp.get("distributions", ("?",))) <= _distributions(found.site):
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
    wrong = fault(environment)
    if wrong is not None:
        raise wrong

    with lock.alone(lock.of_environment(environment), lambda: tell_of_another(environment)):
        if not is_ready(environment, wanted):
            _prepare_alone(environment, wanted)


def tell_of_another(environment: Path) -> None:
    """Say that another process works on the environment, and that this one waits."""
    say(f"Another sdsetup is setting up {environment}; waiting for it to end")


def _prepare_alone(environment: Path, wanted: Wanted) -> None:
    stamp = _read_stamp(environment)
    # What another command put there stays: `install` after `python -m tests` keeps pytest.
    wanted = replace(
        wanted,
        extras=tuple(dict.fromkeys((*wanted.extras, *stamp.get("extras", ())))),
        groups=tuple(dict.fromkeys((*wanted.groups, *stamp.get("groups", ())))),
    )
    lean = _without_torch(wanted)
    if lacks_torch_alone(environment, wanted):
        return
    found_there = stamp.get("found_there", not stamp and places.python_of(environment).exists())
    steps = Steps(f"Setting up {environment}")
    if not wanted.editable and Path(wanted.requirement).parent == places.data_folder():
        own_wheel.write(places.data_folder())
    holds_some = bool(places.distributions(environment))
    install_plan.plan(environment, wanted, here=holds_some, offline=False).require_space()
    for action in _environment_actions(environment, ours=bool(stamp)):
        _run(steps, action, None)
    log = environment / _LOG
    log.unlink(missing_ok=True)
    unfinished = {"unfinished": True, "extras": wanted.extras, "groups": wanted.groups}
    unfinished |= {"flavour": wanted.flavour, "found_there": found_there}
    (environment / _STAMP).write_text(json.dumps(unfinished), encoding="utf-8")
    python, found = places.python_of(environment), look_at(places.python_of(environment))
    if found.site is None:
        raise SetupError("install.environment", f"The Python of {environment} does not start.", _ANEW)
    torn = _torn(found.site, stamp)
    for name, what in torn.items():
        say(f"  {name} is not whole: {what}")
    if not child_environment.pip_works(str(python)) or "pip" in torn:
        for action in installer.restore_pip(python):
            _run(steps, action, log)
    pips = [folder.name for folder in integrity.installed(found.site).get("pip", [])]
    if pips != [f"pip-{known_good.versions()['pip']}.dist-info"]:
        _run(steps, installer.upgrade_pip(python), log)
    settings = child_environment.pip_settings(str(python))
    if settings.left_out:
        say(f"  pip's settings {', '.join(sorted(settings.left_out))} are left aside for this environment")
    infos = integrity.installed(found.site)
    torch = _torch(python, wanted, infos, settings)
    damaged = {name: integrity.version(infos[name][0]) for name in torn if name != "pip"}
    unreadable = [
        folder
        for folder in integrity.unreadable(found.site)
        if known_good.normalized(folder.name.partition("-")[0]) in damaged
    ]
    for action in installer.forget(str(python), damaged, unreadable, torch) if unreadable else ():
        _run(steps, action, log)
    left = integrity.installed(found.site)
    damaged = {name: version for name, version in damaged.items() if name in left}
    for action in installer.install_actions(python, wanted, tuple(left), damaged, torch):
        _run(steps, action, log)
    held = lean if torch.left_out else wanted
    _write_stamp(environment, held, found.site, chosen=wanted, found_there=found_there)
    steps.end("ready")


_ANEW = "delete that folder, then run the same command again."


def _without_torch(wanted: Wanted) -> Wanted:
    return replace(wanted, extras=tuple(extra for extra in wanted.extras if extra != "convert"))


def _torch_is_still_left_out(environment: Path, wanted: Wanted) -> bool:
    python = places.python_of(environment)
    site = look_at(python).site
    infos = integrity.installed(site) if site is not None else {}
    return _torch(python, wanted, infos, child_environment.pip_settings(str(python))).left_out


def _torch(
    python: Path, wanted: Wanted, infos: Mapping[str, Sequence[Path]], settings: PipSettings
) -> TorchSource:
    if "convert" not in wanted.extras:
        return torch_source.ANY
    there = integrity.version(infos["torch"][0]) if "torch" in infos else ""
    with waiting("  looking for PyTorch's CPU build"):
        torch = torch_source.find(python, wanted.flavour, there, settings)
    if torch.left_out and wanted.torch_required:
        raise torch_source.not_found()
    if torch.left_out:
        say_folded(
            "  torch is left out: PyPI's is CUDA's, gigabytes for a machine without an NVIDIA card, and"
            f" {torch_source.CPU_INDEX} has none here or is not reached."
            " Without it sdsetup converts known architectures and makes images; comparing with PyTorch and"
            " tracing new architectures need it."
            f" For a mirror of that index set {torch_source.INDEX_VARIABLE}; then, or once it is reached,"
            f" type: {command_name.typed()} install",
            hang=4,
        )
    return torch


def _run(steps: Steps, action: InstallAction, log: Path | None) -> None:
    with steps.step(action.label) as on_line:
        run(action, on_line, log)


def _environment_actions(environment: Path, *, ours: bool) -> list[InstallAction]:
    """List what makes the environment; empty when a usable one is there."""
    clear: tuple[str, ...] = ()
    if os.path.lexists(environment):
        if look_at(places.python_of(environment)).fits:
            return []
        clear = ("--clear",) if ours or not any(environment.iterdir()) else ()
    return [
        InstallAction(
            label=f"making an environment with Python {sys.version_info.major}.{sys.version_info.minor}",
            argv=(handover.base_python(), "-m", "venv", *clear, str(environment)),
        )
    ]


def _fingerprint(wanted: Wanted) -> str:
    """Digest everything that decides what pip would install."""
    digest = hashlib.sha256(known_good.CONSTRAINTS.read_bytes())
    # The same copy of sdsetup is named by its version in its own environment, and from outside by a wheel.
    requirement = wanted.requirement if wanted.editable else __version__
    digest.update(f"{requirement}\n{wanted.flavour}\n".encode())
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


def _write_stamp(
    environment: Path,
    wanted: Wanted,
    site: Path,
    *,
    chosen: Wanted | None = None,
    found_there: bool = False,
) -> None:
    stamp = {
        "fingerprint": _fingerprint(wanted),
        "flavour": wanted.flavour,
        "lean": "convert" not in (chosen or wanted).extras,
        "found_there": found_there,
        "extras": wanted.extras,
        "groups": wanted.groups,
        "distributions": sorted(_distributions(site)),
    }
    (environment / _STAMP).write_text(json.dumps(stamp, indent=1), encoding="utf-8")


def _distributions(site: Path) -> set[str]:
    """List the names of the ``*.dist-info`` folders of a folder of packages."""
    return {folder.name for folders in integrity.installed(site).values() for folder in folders}


if __name__ == "__main__":
    try:
        renew(places.environment_folder())
    except SetupError as problem:
        complain(problem)
        sys.exit(1)

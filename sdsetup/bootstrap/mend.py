"""Mend distributions of the running Python: ``python -m sdsetup.bootstrap.mend NAME ...``.

What is there and torn is installed again, what is missing is installed with all that it needs, both at the
known-good version. Started by the doctor's ``--fix``. Standard library only.
"""

from __future__ import annotations

import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

from sdsetup.bootstrap import child_environment, installer, integrity, known_good, torch_source
from sdsetup.bootstrap.action import InstallAction, run
from sdsetup.bootstrap.console import complain, say
from sdsetup.errors import SetupError


def mend(names: Sequence[str]) -> None:
    """Bring distributions to the known-good version, whole.

    Args:
        names: Of the distributions, perhaps with extras: ``httpx2[socks]``.

    Raises:
        SetupError: A step failed, and why; or a torch for this machine cannot be had.
    """
    python, site = sys.executable, Path(sysconfig.get_path("purelib"))
    torn = integrity.torn(site)
    if not child_environment.pip_works(python) or "pip" in torn:
        _run(*installer.restore_pip(python))
    infos = integrity.installed(site)
    if "pip" in infos and integrity.version(infos["pip"][0]) != known_good.versions()["pip"]:
        _run(installer.upgrade_pip(python))
    spelled = {known_good.normalized(name.partition("[")[0]): name for name in names}
    wanted = [name for name in spelled if name != "pip"]
    if not wanted:
        return
    torch = torch_source.ANY
    if "torch" in wanted:
        # Torn: the same version is wanted again, from where a build for this machine is.
        torch = torch_source.find(Path(python), _flavour(infos), "", child_environment.pip_settings(python))
        if torch.left_out:
            raise torch_source.not_found()
    present = {name: integrity.version(infos[name][0]) for name in wanted if name in infos}
    unreadable = [
        folder for name in present for folder in infos[name] if folder in integrity.unreadable(site)
    ]
    if unreadable:
        _run(*installer.forget(python, present, unreadable, torch))
        left = integrity.installed(site)
        present = {name: version for name, version in present.items() if name in left}
    if present:
        _run(installer.reinstall(python, present, torch))
    _run(installer.add(python, [spelled[name] for name in wanted], torch))


def _run(*actions: InstallAction) -> None:
    for action in actions:
        say(f"{action.label} ...")
        run(action, say)


def _flavour(infos: dict[str, list[Path]]) -> installer.Flavour:
    there = [flavour for flavour, name in installer.FLAVOUR_DISTRIBUTIONS.items() if name in infos]
    return there[0] if there else installer.flavour_for(sys.platform)


if __name__ == "__main__":
    try:
        mend(sys.argv[1:])
    except SetupError as problem:
        complain(problem)
        sys.exit(1)

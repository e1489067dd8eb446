"""``python -m tests.windows.installation``: install.cmd, pip and ``sdsetup install`` under Windows Python.

Makes a bundle for Windows here, with the numpy that Wine can run, and starts ``install_there.py`` there.
Where this machine cannot hold the Windows root the status is 77, as with ``python -m tests.windows``.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from unittest.mock import patch

from sdsetup.bootstrap import bundle, known_good
from sdsetup.bootstrap.installer import Wanted
from tests.packaging.building import PACKAGES, ROOT, run, sources, wheel
from tests.windows import box, recipes, root
from tests.windows.__main__ import SKIPPED, _say
from tests.windows.unavailable import UnavailableError

LIMIT_SECONDS = 900


def main() -> int:
    """Make the bundle and go; returns the exit status."""
    try:
        layers = root.set_up(_say)
    except UnavailableError as reason:
        _say(f"skipped: {reason}")
        return SKIPPED
    with tempfile.TemporaryDirectory(prefix="windows-installation-") as folder:
        data = Path(folder) / "data"
        make_bundle(data / "bundle", Path(folder))
        shutil.copy(ROOT / "install.cmd", data)
        shutil.copy(box.HERE / "install_there.py", data)
        shutil.copytree(box.HERE / "site", data / "site")
        arguments = [str(LIMIT_SECONDS), r"Z:\data\install_there.py"]
        return box.enter(layers, "python.sh", arguments, limit_seconds=LIMIT_SECONDS + 60, data=data)


def make_bundle(place: Path, folder: Path) -> None:
    """Write a bundle as ``sdsetup install --lean --bundle`` does on Windows, from a machine that is none."""
    (folder / "sources").mkdir()
    copy = sources(folder / "sources")
    numpy = next(line for line in recipes.wheels() if line.startswith("numpy=="))
    pins = copy / "sdsetup" / "bootstrap" / "known_good" / "constraints.txt"
    lines = [numpy if line.startswith("numpy==") else line for line in pins.read_text().splitlines()]
    pins.write_text("\n".join(lines) + "\n")
    wheels = place / "wheels"
    wheels.mkdir(parents=True)
    built = wheel(copy, wheels)
    # By name: pip would judge the markers of what they need for the system that it runs on.
    run(
        *(*recipes.PIP, "download", "--no-deps", "--only-binary=:all:", "--platform=win_amd64"),
        *("--implementation=cp", "--python-version=3.12", "--dest", wheels),
        *(*recipes.wheels(), f"socksio=={known_good.versions('win32')['socksio']}"),
    )
    for name in PACKAGES:
        shutil.copytree(copy / name, place / name, ignore=shutil.ignore_patterns("__pycache__"))
    wanted = Wanted(requirement=str(built), editable=False, flavour="directml", extras=())
    machine = {"Python": "3.12", "system": "win32", "processor": "amd64"}
    with patch.object(bundle, "_machine", return_value=machine):
        bundle._describe(place, wanted, bundle._records(place, ("wheels", *PACKAGES)))


if __name__ == "__main__":
    sys.exit(main())

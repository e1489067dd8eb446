"""What is tested, as one more layer: the project's wheel, installed, and its tests without its sources."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.windows import box, recipes

REPOSITORY = box.HERE.parent.parent
SOURCES = ("sdsetup/", "conversions/")


@contextmanager
def project() -> Iterator[Path]:
    """Make the layer for one run.

    Yields:
        A folder with ``/project`` (every file of the checkout but the packages' sources, so that tests can
        only import what is installed) and Windows Python's site-packages with the wheel's content.
    """
    with tempfile.TemporaryDirectory(prefix="windows-stage-") as temporary:
        stage = Path(temporary) / "stage"
        stage.mkdir()
        site_packages = stage / "opt/python/Lib/site-packages"
        recipes.install_for_windows(site_packages, str(recipes.build_wheel(REPOSITORY, Path(temporary))))
        for module in (box.HERE / "site").glob("*.py"):
            shutil.copy(module, site_packages)
        for name in _files():
            if not name.startswith(SOURCES):
                target = stage / "project" / name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(REPOSITORY / name, target)
        yield stage


def _files() -> list[str]:
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return [name for name in listing.stdout.split("\0") if name and (REPOSITORY / name).is_file()]

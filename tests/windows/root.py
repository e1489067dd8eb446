"""The Windows root: Debian with Wine, a Windows prefix, and CPython with its wheels, as three cached layers.

Each layer is built in a folder of its own and renamed when it is whole, so a stopped set-up leaves nothing
that could be mistaken for one. Its name holds a hash of its recipe: a changed recipe makes a new layer.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import platformdirs

from tests.windows import box, recipes
from tests.windows.unavailable import UnavailableError

PROGRAMS = ("mmdebstrap", "apt-get", "setpriv", "unshare", "mount", "chroot", "timeout", "git")

# Layers of other recipes (another branch's, perhaps) are removed when they were not used for this long.
FORGET_SECONDS = 7 * 24 * 3600


def cache_folder() -> Path:
    """Where the layers are: ``SDSETUP_WINDOWS_ROOT``, or a folder in the user's cache."""
    chosen = os.environ.get("SDSETUP_WINDOWS_ROOT")
    return Path(chosen) if chosen else platformdirs.user_cache_path("sdsetup-windows-tests")


def layers() -> tuple[Path, Path, Path]:
    """The layers that the recipes make, the topmost first, whether they exist or not."""
    system = _digest(recipes.SUITE, *recipes.PACKAGES)
    prefix = _digest(system, (box.HERE / "prefix.sh").read_text())
    python = _digest(recipes.PYTHON_REQUIREMENT, *recipes.wheels(), recipes.cpu_flavour())
    folder = cache_folder()
    return folder / f"python-{python}", folder / f"prefix-{prefix}", folder / f"system-{system}"


def check_machine() -> None:
    """Raise UnavailableError when the root can be neither built nor entered here."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise UnavailableError("the Windows root needs Linux on x86-64.")
    if os.geteuid() != 0:
        raise UnavailableError("the Windows root needs root rights: it is a chroot with mounts of its own.")
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing:
        raise UnavailableError(
            f"missing programs: {', '.join(missing)}; on Debian try: apt-get install mmdebstrap"
        )
    trial = subprocess.run(
        [*box.NAMESPACES, "true"], stdin=subprocess.DEVNULL, capture_output=True, timeout=30, check=False
    )
    if trial.returncode != 0:
        raise UnavailableError("root may not make namespaces here (a container without the right to mount?).")


def set_up(say: Callable[[str], None]) -> tuple[Path, Path, Path]:
    """Build the layers that are missing.

    Args:
        say: Receives log lines.

    Returns:
        The layers, the topmost first.

    Raises:
        UnavailableError: Root rights, a program or a package source is missing.
    """
    check_machine()
    python, prefix, system = layers()
    cache_folder().mkdir(parents=True, exist_ok=True)
    with _only_one_at_a_time(), ThreadPoolExecutor(max_workers=1) as beside:
        wheels = beside.submit(_build, python, say, lambda half: recipes.build_python(half / "upper"))
        _build(system, say, lambda half: recipes.build_system(half / "upper"))
        _build(prefix, say, lambda half: _build_prefix(half, system))
        wheels.result()
    return python, prefix, system


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]


@contextmanager
def _only_one_at_a_time() -> Iterator[None]:
    with (cache_folder() / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build(layer: Path, say: Callable[[str], None], build: Callable[[Path], None]) -> None:
    if not layer.is_dir():
        kind = layer.name.partition("-")[0]
        say(f"building the layer '{kind}' in {cache_folder()}")
        started = time.monotonic()
        # Beside the layer, so that the last step is a rename. What a killed set-up left there goes first.
        half_made = cache_folder() / f"half-made-{kind}"
        shutil.rmtree(half_made, ignore_errors=True)
        half_made.mkdir()
        build(half_made)
        for other in cache_folder().glob(f"{kind}-*"):
            if time.time() - (other / ".used").stat().st_mtime > FORGET_SECONDS:
                shutil.rmtree(other, ignore_errors=True)
        (half_made / "upper/.used").touch()
        (half_made / "upper").rename(layer)
        shutil.rmtree(half_made, ignore_errors=True)
        say(f"built the layer '{kind}' in {time.monotonic() - started:.0f} s")
    (layer / ".used").touch()


def _build_prefix(half_made: Path, system: Path) -> None:
    status = box.enter([system], "prefix.sh", limit_seconds=300, upper=half_made)
    if status != 0:
        raise RuntimeError(f"making Wine's prefix failed with status {status}")

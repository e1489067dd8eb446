"""Build the project's wheel from a copy of its sources, and run programs as a person's shell would."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("sdsetup", "conversions")


def started(*argv: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "GIT_"))}
    return subprocess.run(
        [str(argument) for argument in argv], cwd=cwd, env=kept,
        capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=300,
    )  # fmt: skip


def run(*argv: str | Path, cwd: Path | None = None) -> str:
    answer = started(*argv, cwd=cwd)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return answer.stdout


def sources(folder: Path) -> Path:
    ignored = shutil.ignore_patterns("__pycache__", "_version.py")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE", ".gitignore"):
        shutil.copy(ROOT / name, folder)
    return folder


def wheel(sources: Path, folder: Path) -> Path:
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--wheel-dir", folder, sources)
    (built,) = folder.glob("*.whl")
    return built

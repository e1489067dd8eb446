"""Other programs' packages on the search path, in real processes."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
RAISES = "raise SystemExit('another program was imported')\n"


def _write(folder: Path, *files: str) -> Path:
    for name in files:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(RAISES)
    return folder


def _run(place: Path, search: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    place.mkdir(exist_ok=True)
    return subprocess.run(
        [sys.executable, "-m", "sdsetup", *arguments],
        cwd=place, env={**os.environ, "PYTHONPATH": search}, capture_output=True, text=True, check=False,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip


FOREIGN = {
    "a package of ours": ("typer/__init__.py", "rich/__init__.py"),
    "a module of the standard library": ("dataclasses.py", "json/__init__.py", "pathlib.py"),
    "a dependency of a dependency": ("click/__init__.py", "idna.py"),
    "a name that differs from its distribution's": ("PIL/__init__.py", "yaml.py", "google/__init__.py"),
    "another sdsetup": ("conversions/__init__.py",),
}
if sys.platform == "win32":  # the tests' own sitecustomize imports the standard library before any of ours
    del FOREIGN["a module of the standard library"]


@pytest.mark.parametrize("kind", FOREIGN)
# Behind our own it hides nothing on any system, and each start is slow under Wine.
@pytest.mark.parametrize("before", [True] if sys.platform == "win32" else [True, False])
def test_the_command_works_whatever_pythonpath_brings(kind: str, before: bool, tmp_path: Path) -> None:
    foreign = str(_write(tmp_path / "foreign", *FOREIGN[kind]))
    search = os.pathsep.join([foreign, str(ROOT)] if before else [str(ROOT), foreign])
    answer = _run(tmp_path / "work", search, "convert", "--help")
    assert answer.returncode == 0, answer.stderr
    assert "Convert a checkpoint" in answer.stdout


def test_the_doctor_names_it_and_keeps_what_hides_nothing(tmp_path: Path) -> None:
    foreign = _write(tmp_path / "foreign", "typer/__init__.py", "numpy.py")
    harmless = _write(tmp_path / "harmless", "somebody_elses.py", "models/readme.txt")
    search = os.pathsep.join(map(str, (foreign, harmless, ROOT)))
    answer = _run(tmp_path / "work", search, "doctor", "--only", "python.search-path", "--json")
    (finding,) = json.loads(answer.stdout)["findings"]
    assert finding["status"] == "warning"
    assert f"{foreign} holds numpy, typer" in finding["evidence"]
    assert str(harmless) not in finding["evidence"]
    assert finding["fix"]["commands"]


def test_what_the_doctor_starts_does_not_see_it_either(tmp_path: Path) -> None:
    foreign = _write(tmp_path / "foreign", "onnxruntime/__init__.py", "numpy/__init__.py")
    search = os.pathsep.join(map(str, (foreign, ROOT)))
    answer = _run(tmp_path / "work", search, "doctor", "--only", "runtime.import,runtime.trial", "--json")
    found: dict[str, Any] = {each["id"]: each for each in json.loads(answer.stdout)["findings"]}
    assert {each["status"] for each in found.values()} == {"ok"}, found


def test_modules_in_the_working_folder_hide_nothing(tmp_path: Path) -> None:
    _write(tmp_path / "work", "numpy.py", "random.py", "typer.py")
    answer = _run(tmp_path / "work", str(ROOT), "convert", "--help")
    assert answer.returncode == 0, answer.stderr

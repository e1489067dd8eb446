"""The doctor's verdict is what the command then does: over real environments, broken in many ways.

For each: doctor, its fix, doctor again, and the command itself. "Ready" means that the command works, and no
fix makes things worse. The quick ones run with every change; all run with ``-m robustness``.
"""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

if sys.platform == "win32":
    pytest.skip("breaks things the POSIX way", allow_module_level=True)

from tests.sdsetup import toy_package
from tests.sdsetup.doctor.broken_environments import BREAKS, Break, Place, make


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_package.write(tmp_path_factory.mktemp("package") / "toy")


def _doctor(place: Place, case: Break, *arguments: str) -> dict[str, Any]:
    purpose = ["convert", "demo"] if case.converting else ["generate", str(place.package)]
    answer = place.run("doctor", "--for", *purpose, "--offline", "--json", *arguments)
    assert "Traceback" not in _ours(answer.stderr), answer.stderr
    assert answer.returncode in {0, 1}, answer.stderr
    document: dict[str, Any] = json.loads(answer.stdout)
    assert document["ready"] == (answer.returncode == 0)
    return document


def _ours(stderr: str) -> str:
    """Leave out what Python itself prints about a .pth file, before any of our code runs."""
    return stderr.rpartition("Remainder of file ignored")[2]


def _failures(document: dict[str, Any]) -> dict[str, Any]:
    return {finding["id"]: finding for finding in document["findings"] if finding["status"] == "failure"}


def _works(place: Place, case: Break) -> str:
    """Run the command; give what it said when it failed."""
    if case.converting:
        answer = place.run("convert", "demo", "--output", "made", "--overwrite", "--no-smoke-test")
    else:
        answer = place.run(
            "generate", str(place.package), "a circle", "--steps", "1", "--output", "made.png", "--overwrite"
        )
    assert "Traceback" not in _ours(answer.stderr), answer.stderr
    return "" if answer.returncode == 0 else answer.stderr or f"exit status {answer.returncode}"


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=case.name, marks=() if case.quick else (pytest.mark.robustness,))
        for case in BREAKS
    ],
)
def test_ready_means_that_the_command_works(case: Break, package: Path, tmp_path: Path) -> None:
    place = make(tmp_path, package, converting=case.converting)
    case.act(place)
    before = _doctor(place, case)
    broken = _works(place, case)
    assert not (before["ready"] and broken), f"the doctor says {before['verdict']}, the command: {broken}"
    if before["ready"]:
        return
    for finding in _failures(before).values():
        assert finding["fix"]["says"], finding
    _doctor(place, case, "--fix", "--yes")
    after = _doctor(place, case)
    still = _works(place, case)
    assert not (after["ready"] and still), f"the doctor says {after['verdict']}, the command: {still}"
    assert broken or not still, f"the fix made it worse: {still}"
    assert set(_failures(after)) <= set(_failures(before)), "the fix made it worse"
    if case.mended:
        assert after["ready"], _failures(after)


def test_there_are_enough_of_them() -> None:
    assert len({case.name for case in BREAKS}) >= 40

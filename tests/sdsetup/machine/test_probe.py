import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from sdsetup.machine import probe, readers
from sdsetup.machine.facts import Questions

ROOT = Path(__file__).parents[3]


@pytest.fixture
def questions(tmp_path: Path) -> Questions:
    return Questions(output=tmp_path, offline=True)


def test_every_part_of_this_machine_is_read(questions: Questions) -> None:
    seen = probe.probe(questions)
    assert not seen.unknown
    for field in readers.readers():
        assert getattr(seen, field) is not None, field
    assert set(readers.LIMITS_SECONDS) == set(readers.readers())


def test_only_the_wanted_parts_are_read(questions: Questions) -> None:
    seen = probe.probe(questions, only=frozenset({"machine"}))
    assert seen.machine is not None
    assert seen.runtime is None


def test_a_reader_that_hangs_or_fails_leaves_its_reason_and_stops_nobody(questions: Questions) -> None:
    def hang(_questions: Questions) -> Any:
        time.sleep(30)

    def fail(_questions: Questions) -> Any:
        raise OSError("no such luck")

    readers = {"hang": hang, "fail": fail, "work": lambda _questions: 42}
    limits = {"hang": 0.3, "fail": 5.0, "work": 5.0}
    values, unknown, _ = probe._side_by_side(readers, questions, limits)
    assert values == {"work": 42}
    assert "0.3 s" in unknown["hang"]
    assert "no such luck" in unknown["fail"]


def test_the_doctor_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from sdsetup.cli.app import main\n"
        "main(['doctor', '--offline', '--json'])\n"
        "sys.stderr.write(' '.join(m for m in ('torch', 'diffusers', 'transformers', 'onnxruntime', 'onnx')"
        " if m in sys.modules))\n"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        stdin=subprocess.DEVNULL,
    )
    assert answer.stderr == ""

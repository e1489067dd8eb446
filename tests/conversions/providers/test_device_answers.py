from __future__ import annotations

import json
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import onnxruntime
import platformdirs
import pytest

from conversions.providers import device_answers
from conversions.providers.device_answers import DAYS, keep, kept
from conversions.providers.devices import CPU


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "caches" / "sdsetup" / "devices.json"
    monkeypatch.setattr(device_answers, "file", lambda: path)
    return path


def test_an_answer_is_kept_for_a_device_and_a_question(monkeypatch: pytest.MonkeyPatch) -> None:
    assert kept(CPU, "faster") is None
    keep(CPU, "faster", answer=True)
    keep(CPU, "right", answer=False)
    assert kept(CPU, "faster") is True
    assert kept(CPU, "right") is False
    assert kept(replace(CPU, number=1), "faster") is None
    monkeypatch.setattr(onnxruntime, "__version__", "another")
    assert kept(CPU, "faster") is None


@pytest.mark.parametrize(
    ("days", "known"), [(DAYS, True), (1, True), (0, None), (-1, None), (DAYS + 1, None)]
)
def test_an_answer_is_kept_for_a_month_or_less(days: int, known: bool | None) -> None:
    keep(CPU, "faster", answer=True, days=days)
    assert kept(CPU, "faster") is known


def test_a_later_answer_counts(file: Path) -> None:
    keep(CPU, "faster", answer=False, days=1)
    keep(CPU, "faster", answer=True)
    assert kept(CPU, "faster") is True
    (answer,) = json.loads(file.read_text()).values()
    assert answer == {"answer": True, "until": str(date.today() + timedelta(days=DAYS))}


@pytest.mark.parametrize(
    "content", [b"", b"[1]", b"{", b"\xff\xfe", b'"text"', pytest.param(b"[" * 100_000, id="deep")]
)
def test_a_damaged_file_holds_nothing_and_is_written_anew(file: Path, content: bytes) -> None:
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    assert kept(CPU, "faster") is None
    keep(CPU, "faster", answer=True)
    assert kept(CPU, "faster") is True


TOMORROW = str(date.today() + timedelta(days=1))


@pytest.mark.parametrize(
    "answer",
    [
        None,
        [],
        "yes",
        {},
        {"answer": True},
        {"answer": True, "until": 3},
        {"answer": True, "until": "tomorrow"},
        {"answer": "yes", "until": TOMORROW},
        {"answer": 1, "until": TOMORROW},
    ],
)
def test_a_damaged_answer_is_none(file: Path, answer: Any) -> None:
    keep(CPU, "faster", answer=True)
    (key,) = json.loads(file.read_text())
    file.write_text(json.dumps({key: answer}))
    assert kept(CPU, "faster") is None


def test_where_nothing_can_be_written_nothing_is_kept(file: Path) -> None:
    file.parent.parent.write_text("a file in the way")
    keep(CPU, "faster", answer=True)
    assert kept(CPU, "faster") is None


def test_a_file_that_cannot_be_written_again_is_left(file: Path) -> None:
    file.parent.mkdir(parents=True)
    file.write_text('{"\\ud800": 1}')
    keep(CPU, "faster", answer=True)
    assert kept(CPU, "faster") is None


def test_the_file_is_in_the_folder_of_caches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert device_answers.file().name == "devices.json"
    assert platformdirs.user_cache_path("sdsetup", appauthor=False) == device_answers.file().parent

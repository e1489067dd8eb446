from __future__ import annotations

import json
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import onnxruntime
import pytest

from conversions.providers import device_answers
from conversions.providers.device_answers import DAYS, keep, kept
from conversions.providers.devices import CPU


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "caches" / "sdsetup" / "devices.json"
    monkeypatch.setattr(device_answers, "file", lambda: path)
    return path


def change(file: Path, **fields: Any) -> None:
    document = json.loads(file.read_text())
    for answer in document.values():
        answer |= fields
    file.write_text(json.dumps(document))


def test_an_answer_is_kept_for_a_device_and_a_question(monkeypatch: pytest.MonkeyPatch) -> None:
    assert kept(CPU, "faster") is None
    keep(CPU, "faster", answer=True)
    keep(CPU, "right", answer=False)
    assert kept(CPU, "faster") is True
    assert kept(CPU, "right") is False
    assert kept(replace(CPU, number=1), "faster") is None
    monkeypatch.setattr(onnxruntime, "__version__", "another")
    assert kept(CPU, "faster") is None


@pytest.mark.parametrize(("age", "known"), [(0, True), (DAYS - 1, True), (DAYS, None), (-1, None)])
def test_an_answer_is_kept_for_a_month(file: Path, age: int, known: bool | None) -> None:
    keep(CPU, "faster", answer=True)
    change(file, found=str(date.today() - timedelta(days=age)))
    assert kept(CPU, "faster") is known


@pytest.mark.parametrize("content", [b"", b"[1]", b"{", b"\xff\xfe", b'"text"'])
def test_a_damaged_file_holds_nothing_and_is_written_anew(file: Path, content: bytes) -> None:
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    assert kept(CPU, "faster") is None
    keep(CPU, "faster", answer=True)
    assert kept(CPU, "faster") is True


@pytest.mark.parametrize("answer", [None, [], "yes", {}, {"found": 3}, {"found": "yesterday"}])
def test_a_damaged_answer_is_none(file: Path, answer: Any) -> None:
    keep(CPU, "faster", answer=True)
    (key,) = json.loads(file.read_text())
    file.write_text(json.dumps({key: answer}))
    assert kept(CPU, "faster") is None


def test_where_nothing_can_be_written_nothing_is_kept(file: Path) -> None:
    file.parent.parent.write_text("a file in the way")
    keep(CPU, "faster", answer=True)
    assert kept(CPU, "faster") is None


def test_the_file_is_in_the_folder_of_caches(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.undo()
    assert device_answers.file().name == "devices.json"
    assert "sdsetup" in device_answers.file().parts

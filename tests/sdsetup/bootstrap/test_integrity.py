"""Whole packages, against the lists that installers write."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sdsetup.bootstrap import integrity

LIST = "certifi/cacert.pem"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Write an installed distribution; its files are newer than its list."""
    files = {LIST: "one\n", "certifi/core.py": "pass\n", "certifi-1.dist-info/METADATA": "Name: certifi\n"}
    files["certifi-1.dist-info/INSTALLER"] = "pip\n"
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8", newline="\n")
    record = tmp_path / "certifi-1.dist-info" / "RECORD"
    record.write_text("".join(f"{name},,{len(text)}\n" for name, text in files.items()), encoding="utf-8")
    os.utime(record, (0, 0))
    return tmp_path


def test_certificates_may_be_added(place: Path) -> None:
    assert integrity.torn(place) == {}
    (place / LIST).write_text("one\nours\n", encoding="utf-8")
    assert integrity.torn(place) == {}


@pytest.mark.parametrize("name", [LIST, "certifi/core.py"])
def test_a_file_that_ends_early_or_is_gone_is_torn(place: Path, name: str) -> None:
    (place / name).write_text("o", encoding="utf-8")
    assert integrity.torn(place) == {
        "certifi": f"of 4 files 0 are missing and 1 are not what was installed: {name}"
    }
    (place / name).unlink()
    assert "of 4 files 1 are missing" in integrity.torn(place)["certifi"]


def test_other_files_may_not_grow(place: Path) -> None:
    (place / "certifi/core.py").write_text("pass\npass\n", encoding="utf-8")
    assert "certifi" in integrity.torn(place)

"""Benchmarks beside each other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sdsetup.errors import UsageError
from sdsetup.imaging import benchmark_table


def _document(step: float, vram: int | None) -> dict[str, Any]:
    return {
        "request": {"images": 1, "width": 512, "height": 384, "steps": 20},
        "machine": {"device": "Card | one", "provider": "P", "package": "demo"},
        "seconds_per_step": step,
        "seconds_per_image": 20 * step,
        "first_image_seconds": 30.0,
        "peak_ram_bytes": 2**30,
        "peak_vram_bytes": vram,
    }


def test_two_benchmarks_are_compared_number_by_number(tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text(json.dumps(_document(0.2, None)))
    other = benchmark_table.read(tmp_path / "other.json")
    rows = {label: values for label, *values in benchmark_table.rows(_document(0.1, 2**31), other)}
    assert rows["a step"] == ["0.100 s", "0.200 s", "0.50"]
    assert rows["an image"] == ["2.00 s", "4.00 s", "0.50"]
    assert rows["peak VRAM"] == ["2.0 GiB", "not known", ""]
    assert rows["images"] == ["1 of 512x384, 20 steps"] * 2 + [""]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
def test_what_a_shell_redirected_is_read_in_its_encoding(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "other.json").write_text(json.dumps(_document(0.2, None)), encoding=encoding)
    assert benchmark_table.read(tmp_path / "other.json") == _document(0.2, None)


def test_the_markdown_table_keeps_its_columns() -> None:
    lines = benchmark_table.as_markdown(_document(0.1, None)).splitlines()
    assert lines[1] == "| --- | --- |"
    assert "| device | Card \\| one |" in lines
    compared = benchmark_table.as_markdown(_document(0.1, None), _document(0.3, None)).splitlines()
    assert "| a step | 0.100 s | 0.300 s | 0.33 |" in compared


def test_the_markdown_table_names_all_that_was_measured_and_about_what() -> None:
    names = ("device", "provider", "package", "precision", "onnxruntime", "sdsetup", "system", "processor")
    document = {**_document(1.5, 3 * 2**30), "machine": {name: f"its {name}" for name in names}}
    assert benchmark_table.as_markdown(document).splitlines() == [
        "|  | this |",
        "| --- | --- |",
        "| images | 1 of 512x384, 20 steps |",
        *(f"| {name} | its {name} |" for name in names),
        "| a step | 1.50 s |",
        "| an image | 30.00 s |",
        "| first image | 30.00 s |",
        "| peak RAM | 1.0 GiB |",
        "| peak VRAM | 3.0 GiB |",
    ]
    other = {**_document(0.0, None), "machine": {}}
    compared = benchmark_table.as_markdown(document, other).splitlines()
    assert compared[:2] == ["|  | this | other | this / other |", "| --- | --- | --- | --- |"]
    assert "| system | its system |  |  |" in compared
    assert "| a step | 1.50 s | 0.000 s |  |" in compared
    assert "| first image | 30.00 s | 30.00 s | 1.00 |" in compared


_NO_MACHINE = json.dumps({**_document(0.1, None), "machine": []})


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"request": 1}', '"x"', _NO_MACHINE])
def test_what_is_no_benchmark_is_refused_with_the_way_to_make_one(tmp_path: Path, text: str) -> None:
    (tmp_path / "other.json").write_text(text)
    with pytest.raises(UsageError, match="is not what") as caught:
        benchmark_table.read(tmp_path / "other.json")
    assert "--json >" in caught.value.hint

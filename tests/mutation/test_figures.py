from __future__ import annotations

from pathlib import Path

import pytest

from tests.mutation import __main__ as command
from tests.mutation.__main__ import BEGIN, END, Result, is_equivalent, write


def test_figures_take_the_place_of_those_of_the_same_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "PAGE", tmp_path / "page.md")
    command.PAGE.write_text(f"Before\n\n{BEGIN}\n{END}\n\nAfter\n", "utf-8")
    write([Result(module="b.py", total=1000, noticed=8, equivalent=1, survivors=["diff"])])
    write([Result(module="a.py", total=1, noticed=1), Result(module="b.py", total=1000, noticed=10)])
    lines = command.PAGE.read_text("utf-8").splitlines()
    assert lines[:2] == ["Before", ""]
    assert lines[2] == BEGIN
    assert lines[5:] == [
        "| `a.py` | 1 of 1 | 1 | 0 | 0 | 100% |",
        "| `b.py` | 10 of 1,000 | 10 | 0 | 0 | 100% |",
        END,
        "",
        "After",
    ]


def test_what_changes_nothing_is_known_by_its_line() -> None:
    path = Path("conversions/checkpoint/json_file.py")
    old, new = (f"json.dumps(document, ensure_ascii={value}).encode()" for value in ("False", "None"))
    assert is_equivalent(path, old, new)
    assert not is_equivalent(path, old, old.replace("False", "True"))
    assert not is_equivalent(Path("conversions/plan.py"), old, new)

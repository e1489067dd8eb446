"""Files that the pages name are there, and the map of the architecture leaves no part of a package out."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

import conversions

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the tests there have no sources")

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
_PATH = re.compile(r"`((?:conversions|sdsetup|tests|docs)/[\w./-]+)`")
_MODULE = re.compile(r"`(?:python -m )?((?:conversions|sdsetup|tests)(?:\.[a-z_0-9]+)+)\b")
_PLACEHOLDER = re.compile(r"\b(?:NAME|KIND)\b")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_file_that_a_page_names_is_there(page: Path) -> None:
    text = page.read_text("utf-8")
    paths = [name for name in _PATH.findall(text) if not _PLACEHOLDER.search(name)]
    assert not [name for name in paths if not (ROOT / name).exists()]
    assert not [name for name in _MODULE.findall(text) if not is_module(name)]


def is_module(name: str) -> bool:
    """Say whether a dotted name is a module's, or that of something in a module."""
    if name.removeprefix("conversions.") in conversions.__all__:
        return True
    path = ROOT / name.replace(".", "/")
    inside = [path, path.parent] if path.parent.with_suffix(".py").is_file() else [path]
    return any(each.is_dir() or each.with_suffix(".py").is_file() for each in inside)


def test_the_map_names_every_file_or_the_folder_that_it_is_in() -> None:
    text = (ROOT / "docs" / "explanation" / "architecture.md").read_text("utf-8")
    table = "\n".join(line for line in text.splitlines() if line.startswith("|"))
    named = {ROOT / name for name in _PATH.findall(table)}
    left_out = {
        path.relative_to(ROOT).as_posix()
        for package in ("conversions", "sdsetup")
        for path in (ROOT / package).rglob("*.py")
        if path.name not in {"__init__.py", "_version.py"} and not named & {path, *path.parents}
    }
    assert not left_out

"""The command at the end of ``convert``: what a shell makes of it."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest

from sdsetup.cli.convert import show_next
from tests.sdsetup import toy_package


@pytest.mark.skipif(sys.platform == "win32", reason="Windows allows no quotation marks in names")
@pytest.mark.parametrize("name", ['a "red" cat', "5$HOME", "it's", "plain"])
def test_it_names_the_package_whatever_its_name_is(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    package = toy_package.write(tmp_path / name)
    show_next(package)
    said = capsys.readouterr().err.splitlines()[0]
    words = shlex.split(said.removeprefix("Make an image: "))
    assert words[words.index("generate") + 1] == str(package)

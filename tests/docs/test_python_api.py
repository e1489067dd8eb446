"""The page of the library: its signatures are the code's, its first script works."""

from __future__ import annotations

import ast
import inspect
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import conversions
from conversions.inspection import Inspection
from sdsetup import demo

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "python-api.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE)


def signature(source: str) -> str:
    """Return the first function's name, parameters and type, however its source is laid out."""
    (function,) = (each for each in ast.parse(source).body if isinstance(each, ast.FunctionDef))
    returns = "" if function.returns is None else ast.unparse(function.returns)
    return f"{function.name}({ast.unparse(function.args)}) -> {returns}"


def documented() -> dict[str, str]:
    written = (signature(block) for block in BLOCKS if block.startswith("def "))
    return {text.partition("(")[0]: text for text in written}


def test_every_public_function_is_on_the_page_and_no_other() -> None:
    assert documented().keys() == set(conversions.__all__)


@pytest.mark.parametrize("name", conversions.__all__)
def test_a_signature_on_the_page_is_that_of_the_code(name: str) -> None:
    function = getattr(conversions, name)
    assert documented()[name] == signature(textwrap.dedent(inspect.getsource(function)))
    parameters = inspect.signature(function).parameters
    assert list(parameters) == re.findall(r"(\w+): ", documented()[name])


def test_what_the_page_names_of_an_inspection_is_all_there() -> None:
    section = PAGE.read_text("utf-8").split("## inspect\n")[1].split("\n## ")[0]
    assert set(Inspection.__dataclass_fields__) - set(re.findall(r"`(\w+)`", section)) == {"what", "origin"}


@pytest.mark.torch
def test_the_first_script_converts_and_verifies(tmp_path: Path) -> None:
    script = BLOCKS[0]
    assert sum(bool(line) for line in script.splitlines()) == 3
    (tmp_path / "first.py").write_text(script, "utf-8")
    (tmp_path / "stable-diffusion-v1-4").symlink_to(demo.checkpoint_path(), target_is_directory=True)
    root = Path(conversions.__path__[0]).parent
    after = "from conversions import inspect, verify\n"
    after += "assert verify('package').passed\nprint(inspect('package').what)\n"
    (tmp_path / "after.py").write_text(after, "utf-8")
    for name in ("first.py", "after.py"):
        done = subprocess.run(
            [sys.executable, name],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(root)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    assert done.stdout == "package\n"


def test_the_readme_shows_the_script_that_was_tested() -> None:
    readme = (PAGE.parents[2] / "README.md").read_text("utf-8")
    assert f"```python\n{BLOCKS[0]}```" in readme

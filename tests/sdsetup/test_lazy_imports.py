"""What is left unloaded until it is used, in real interpreters."""

from __future__ import annotations

import subprocess
import sys

import pytest

from sdsetup import lazy_imports

START = """
import sys
import sdsetup
import onnx_ir
print("sympy.core" in sys.modules)
"""

USE = """
import sys
from sdsetup import lazy_imports
sys.meta_path.insert(0, lazy_imports._LazyFinder())
import onnx_ir as ir
assert "sympy.core" not in sys.modules
size = ir.SymbolicDim("width")
assert str(size) == "width" and "sympy.core" not in sys.modules
print((size // 2 + 1).evaluate({"width": 9}), "sympy.core" in sys.modules)
import sympy
import sympy.core
from sympy.core.expr import Expr
from sympy.printing import sstr
assert sympy.Expr is Expr and isinstance(sympy.Symbol("x") + 1, Expr)
print(sstr(sympy.simplify("x + x")))
"""


def ran(program: str) -> str:
    """Return what a program prints in a new interpreter."""
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    return done.stdout


def test_sympy_is_not_loaded_to_start_where_python_loads_lazily_in_one_thread() -> None:
    assert ran(START).split() == [str(not lazy_imports.loads_in_one_thread(sys.version_info[:3]))]


def test_what_is_left_unloaded_works_when_it_is_used() -> None:
    assert ran(USE).split() == ["5", "True", "2*x"]


@pytest.mark.parametrize("name", ["os", "numpy", "sympy.core", "onnx_ir", "sympy_nothing"])
def test_other_modules_are_not_touched(name: str) -> None:
    assert lazy_imports._LazyFinder().find_spec(name, None) is None


def test_without_sympy_nothing_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])
    assert lazy_imports._LazyFinder().find_spec("sympy", None) is None


@pytest.mark.parametrize(
    ("version", "safe"),
    [
        ((3, 11, 8), False),
        ((3, 11, 9), True),
        ((3, 11, 14), True),
        ((3, 12, 0), False),
        ((3, 12, 2), False),
        ((3, 12, 3), True),
        ((3, 13, 0), True),
        ((3, 14, 1), True),
    ],
)
def test_it_is_lazy_in_the_releases_that_load_in_one_thread(
    version: tuple[int, ...], safe: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = list(sys.meta_path)
    with monkeypatch.context() as changed:
        changed.setattr(sys, "meta_path", list(before))
        changed.setattr(sys, "version_info", (*version, "final", 0))
        lazy_imports.install()
        after = list(sys.meta_path)
    assert after[-len(before) :] == before
    assert [type(each) for each in after[: -len(before)]] == [lazy_imports._LazyFinder] * safe

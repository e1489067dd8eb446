from __future__ import annotations

import pytest

pytest.importorskip("mutmut", reason="the dependency group 'mutation' is not installed")

from tests.mutation import mutants

SOURCE = '''"""A module."""

from typing import TypeVar

_T = TypeVar("_T")
_WAIT_SECONDS = 2.0


def larger(first: int, second: int = 5) -> int:
    """Return the larger of both."""
    assert first is not None
    if first < 0:
        raise ValueError("The first one must not be negative.")
    return first if first > second else second
'''


def test_every_change_is_of_behaviour() -> None:
    found = mutants.sample(SOURCE, 1000, "1")
    assert {(each.line, each.added) for each in found} == {
        (9, "def larger(first: int, second: int = 6) -> int:"),
        (12, "if first <= 0:"),
        (12, "if first < 1:"),
        (14, "return first if first >= second else second"),
        (14, "return first if (first > second) and False else second"),
        (14, "return first if (first > second) or True else second"),
    }
    for each in found:
        assert each.removed == SOURCE.splitlines()[each.line - 1].strip()
        assert each.source == SOURCE.replace(each.removed, each.added)


def test_equal_seeds_draw_equal_mutants() -> None:
    drawn = [[each.added for each in mutants.sample(SOURCE, 3, seed)] for seed in ("1", "1", "2", "3", "4")]
    assert drawn[0] == drawn[1]
    assert any(each != drawn[0] for each in drawn[2:])


def test_a_quarter_of_a_sample_changes_a_string_and_a_quarter_drops_a_value() -> None:
    source = "\n".join(f"def f{i}(a):\n    return g('x', a) < {i}" for i in range(20))
    changed = [each.added for each in mutants.sample(source, 40, "1")]
    assert sum("'X" in each for each in changed) == 10
    assert sum("'" not in each or "None" in each or "g('x', )" in each for each in changed) == 10

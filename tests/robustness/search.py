"""The search: hypothesis draws cases until the time is over, and makes those that fail small."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st
from hypothesis.errors import Flaky

from tests.robustness.user import LawBrokenError

_EXAMPLES_AT_ONCE = 100
_SHRINK_SECONDS = 30


@dataclass(kw_only=True)
class Figures:
    """What an attack found.

    Attributes:
        attack: Its name.
        cases: How many cases were tried.
        ends: How many commands ended how, by a short name.
        slowest_seconds: The longest command.
        faults: What was wrong, each with its smallest case.
    """

    attack: str
    cases: int = 0
    ends: dict[str, int] = field(default_factory=dict)
    slowest_seconds: float = 0.0
    faults: list[str] = field(default_factory=list)

    def count(self, end: str) -> None:
        """Count one more command that ended so."""
        self.ends[end] = self.ends.get(end, 0) + 1


def search(
    cases: st.SearchStrategy[Any],
    check: Callable[[Any], None],
    figures: Figures,
    *,
    until: float,
    seed: int,
    most: int = 10**9,
) -> None:
    """Check cases until ``time.monotonic()`` is ``until``; faults go into ``figures`` and end nothing.

    Args:
        cases: What to draw.
        check: Raises LawBrokenError where a case shows a fault.
        figures: Counts, and keeps what is wrong.
        until: When to stop.
        seed: Equal seeds draw equal cases.
        most: How many cases at most.
    """
    known: set[str] = set()
    turn = 0
    while time.monotonic() < until and figures.cases < most:
        turn += 1
        count = min(_EXAMPLES_AT_ONCE, most - figures.cases)
        for kind, text in _batch(cases, check, figures, known, count, until, seed * 100_000 + turn).items():
            known.add(kind)
            figures.faults.append(text)
            print(f"{figures.attack}: {text}", flush=True)  # noqa: T201 - while it runs for hours


def _batch(
    cases: st.SearchStrategy[Any],
    check: Callable[[Any], None],
    figures: Figures,
    known: set[str],
    count: int,
    until: float,
    seed: int,
) -> dict[str, str]:
    """Check some cases; return the first new fault, as small as it became, by what it has in common."""
    found: dict[str, str] = {}

    @seeded(seed)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink),
        report_multiple_bugs=False,
        print_blob=False,
    )
    @given(cases)
    def run(case: Any) -> None:
        if time.monotonic() > until + (_SHRINK_SECONDS if found else 0):
            return
        figures.cases += 1
        try:
            check(case)
        except LawBrokenError as error:
            kind = _kind(str(error))
            if kind in known:
                return
            found.clear()
            found[kind] = f"{str(error)[:1200]}\n    {case!r}"
            raise

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # hypothesis minds how long the strategies are written out
            run()
    except (LawBrokenError, Flaky):  # flaky: a fault that did not show again, or the time was over
        pass
    return found


def _kind(text: str) -> str:
    """Return what two faults have in common that are one: the last error's name, without numbers."""
    words = (
        text.splitlines()[0][:60]
        + " "
        + next((line for line in reversed(text.splitlines()) if "Error" in line or "error" in line), "")
    )
    return "".join(letter for letter in words if not letter.isdigit())[:160]

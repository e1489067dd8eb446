"""Changes that make a weight infinite do so without numpy's warnings: it is refused where it is written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pytest

from conversions.checkpoint.element_types import Numbers
from conversions.weights.expression import Expression, Read
from conversions.weights.lora.merge import AddDelta, Decomposed


@dataclass(frozen=True, kw_only=True)
class Given(Expression):
    """Numbers as they are."""

    numbers: Numbers

    @property
    def shape(self) -> tuple[int, ...]:
        return self.numbers.shape

    @property
    def dtype(self) -> str:
        return "F32"

    @property
    def operands(self) -> tuple[Expression, ...]:
        return ()

    def evaluate(self, first: int, count: int, read: Read) -> Numbers:  # noqa: ARG002 - its signature
        return self.numbers.reshape(-1)[first : first + count]


ONES = Given(numbers=np.ones((2, 2), np.float32))
LARGE = Given(numbers=np.full((2, 2), 3e38, np.float32))


def read(*_: object) -> Numbers:
    raise AssertionError


def test_a_sum_that_is_too_large_is_infinite() -> None:
    for delta, factor in ((ONES, 1e39), (LARGE, 2.0), (ONES, -1e39)):
        found = AddDelta(base=ONES, delta=delta, factor=factor).evaluate(0, 4, read)
        assert np.isinf(found).all()


@pytest.mark.parametrize("along", ["rows", "columns"])
def test_so_is_a_change_of_lengths(along: Literal["rows", "columns"]) -> None:
    lengths = Given(numbers=np.ones(2, np.float32))
    found = Decomposed(
        base=ONES, delta=LARGE, factor=1e39, magnitude=lengths, scale=2.0, along=along
    ).evaluate(0, 4, read)
    assert not np.isfinite(found).any()

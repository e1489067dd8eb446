"""Add a change to a weight, by rows, in float32."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from conversions.checkpoint.element_types import Numbers
from conversions.weights.expression import Expression, Read
from conversions.weights.lora.delta import Matrix, float32, whole

# Keeps a row of zeros from being divided by its length. Source: LyCORIS, which adds float32's epsilon.
_EPSILON = np.float32(np.finfo(np.float32).eps)


@dataclass(frozen=True, kw_only=True)
class _Merged(Expression):
    """A weight with a change; the change has as many elements, in the same order."""

    base: Expression
    delta: Expression

    @property
    def shape(self) -> tuple[int, ...]:
        """Dimensions of the weight."""
        return self.base.shape

    @property
    def dtype(self) -> str:
        """Float32."""
        return "F32"

    @property
    def operands(self) -> tuple[Expression, ...]:
        """The weight first: its place in the checkpoint is the result's."""
        return (self.base, self.delta)


@dataclass(frozen=True, kw_only=True)
class AddDelta(_Merged):
    """A weight plus a change times a factor."""

    factor: float

    def evaluate(self, first: int, count: int, read: Read) -> Numbers:
        """Add up the elements that are wanted."""
        with _without_warnings():
            changed = float32(self.delta, first, count, read) * np.float32(self.factor)
            changed += float32(self.base, first, count, read)
            return changed


@dataclass(frozen=True, kw_only=True)
class Decomposed(_Merged):
    """A weight whose rows, or columns, get a direction and a length apart (DoRA).

    With the changed weight ``v = base + scale * delta`` this is
    ``base + factor * (magnitude * v / |v| - base)``: at a factor of 1 what was trained, at 0 the weight.

    Attributes:
        magnitude: The lengths.
        scale: Multiplies the change: alpha over rank.
        factor: How much of it all.
        along: Whether a length is that of a row (an output), or of an input's column over all outputs.

    Source: ``DoraLinearVariant.merge_safe`` of PEFT 0.21; ``apply_dora_scale`` of LyCORIS 4.1, which has the
    factor, and its ``wd_on_out``, which is what the shape of ``dora_scale`` tells.
    """

    magnitude: Expression
    scale: float
    factor: float
    along: Literal["rows", "columns"]

    @property
    def operands(self) -> tuple[Expression, ...]:
        """The weight, the change and the lengths."""
        return (self.base, self.delta, self.magnitude)

    @property
    def granule(self) -> int:
        """A row, or all where the lengths are those of columns."""
        rows = self.shape[0] if self.along == "rows" else 1
        return max(1, self.size // rows, self.base.granule, self.delta.granule)

    def evaluate(self, first: int, count: int, read: Read) -> Numbers:
        """Change the rows that are wanted, and give them their lengths."""
        with _without_warnings():
            base = float32(self.base, first, count, read)
            changed = float32(self.delta, first, count, read) * np.float32(self.scale) + base
            if self.along == "rows":
                row = self.size // self.shape[0]
                matrix: Matrix = changed.reshape(-1, row)
                lengths = float32(self.magnitude, first // row, count // row, read)[:, None]
                lengths = lengths / (_norm(matrix, (1,)) + _EPSILON)
            else:
                matrix = changed.reshape(self.shape[0], self.shape[1], -1)
                lengths = whole(self.magnitude, read).reshape(1, -1, 1) / (_norm(matrix, (0, 2)) + _EPSILON)
            result: Matrix = (matrix * lengths).reshape(-1)
            if self.factor != 1:
                result = base + np.float32(self.factor) * (result - base)
            return result


def _without_warnings() -> np.errstate:
    """What becomes too large is infinite here, and refused by the weight's name where it is written."""
    return np.errstate(over="ignore", invalid="ignore")


def _norm(matrix: Matrix, axes: tuple[int, ...]) -> Matrix:
    squares: Matrix = np.square(matrix).sum(axis=axes, keepdims=True)
    return np.sqrt(squares)

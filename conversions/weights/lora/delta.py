"""The changes that adapters make, as expressions: products of factors, evaluated by rows in float32.

Every expression here is a matrix: rows along a weight's first axis, all other axes together as columns.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from conversions.checkpoint.element_types import Numbers
from conversions.weights.expression import Expression, Read, evaluate_range
from conversions.weights.kernels import multiply, to_float32

Matrix = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class _Computed(Expression):
    """A matrix that is computed in float32, whole rows at a time."""

    @property
    def dtype(self) -> str:
        """Float32."""
        return "F32"

    @property
    def granule(self) -> int:
        """A row."""
        return max(1, self.shape[1])


@dataclass(frozen=True, kw_only=True)
class Product(_Computed):
    """The matrix product of two matrices."""

    left: Expression
    right: Expression

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows of the left one, columns of the right one."""
        return (self.left.shape[0], self.right.shape[1])

    @property
    def operands(self) -> tuple[Expression, ...]:
        """Both."""
        return (self.left, self.right)

    def evaluate(self, first: int, count: int, read: Read) -> Numbers:
        """Multiply the rows that are wanted."""
        first_row, rows = first // self.granule, count // self.granule
        inner = self.left.shape[1]
        left = float32(self.left, first_row * inner, rows * inner, read).reshape(rows, inner)
        return multiply(left, whole(self.right, read)).reshape(-1)


@dataclass(frozen=True, kw_only=True)
class Core(_Computed):
    """The right factor of a Tucker decomposition: a kernel over pairs of ranks, and the input's factor.

    With a core ``t`` of the shape ``[r, s, ...]`` and a matrix ``b`` of ``[s, in]`` this is
    ``sum_s t[r, s, ...] b[s, in]``, its columns the input's channels and then the kernel's axes.

    Source: ``rebuild_tucker`` of LyCORIS 4.1 (lycoris/functional/general.py).
    """

    core: Expression
    right: Expression

    @property
    def shape(self) -> tuple[int, ...]:
        """First rank; channels times the kernel's elements."""
        first, second, *_ = self.core.shape
        kernel = self.core.size // (first * second)
        return (first, self.right.shape[1] * kernel)

    @property
    def operands(self) -> tuple[Expression, ...]:
        """Both."""
        return (self.core, self.right)

    def evaluate(self, first: int, count: int, read: Read) -> Numbers:
        """Contract all, and return the rows that are wanted."""
        ranks = self.core.shape[:2]
        core = float32(self.core, 0, self.core.size, read).reshape(*ranks, -1)
        result: Matrix = np.einsum("rsk,sc->rck", core, whole(self.right, read), optimize=True)
        return result.reshape(-1)[first : first + count]


@dataclass(frozen=True, kw_only=True)
class Hadamard(_Computed):
    """Two matrices of one shape, multiplied element by element."""

    left: Expression
    right: Expression

    @property
    def shape(self) -> tuple[int, ...]:
        """That of each."""
        return self.left.shape

    @property
    def operands(self) -> tuple[Expression, ...]:
        """Both."""
        return (self.left, self.right)

    def evaluate(self, first: int, count: int, read: Read) -> Numbers:
        """Multiply the elements that are wanted."""
        left, right = (float32(each, first, count, read) for each in self.operands)
        product: Numbers = left * right
        return product


@dataclass(frozen=True, kw_only=True)
class Kronecker(_Computed):
    """The Kronecker product of a matrix ``[a, c]`` with one of ``[b, d k]``: ``[a b, c d k]``.

    Source: ``make_kron`` of LyCORIS 4.1 (lycoris/functional/lokr.py).
    """

    left: Expression
    right: Expression

    @property
    def shape(self) -> tuple[int, ...]:
        """The products of both shapes."""
        return (self.left.shape[0] * self.right.shape[0], self.left.shape[1] * self.right.shape[1])

    @property
    def operands(self) -> tuple[Expression, ...]:
        """Both."""
        return (self.left, self.right)

    def evaluate(self, first: int, count: int, read: Read) -> Numbers:
        """Multiply the rows that are wanted."""
        left, right = whole(self.left, read), whole(self.right, read)
        places = np.arange(first // self.granule, (first + count) // self.granule)
        outer, inner = np.divmod(places, len(right))
        product: Numbers = (left[outer][:, :, None] * right[inner][:, None, :]).reshape(-1)
        return product


def float32(expression: Expression, first: int, count: int, read: Read) -> Matrix:
    """Evaluate a range of elements as float32."""
    return to_float32(evaluate_range(expression, first, count, read))


def whole(expression: Expression, read: Read) -> Matrix:
    """Evaluate a matrix as float32."""
    return float32(expression, 0, expression.size, read).reshape(expression.shape)

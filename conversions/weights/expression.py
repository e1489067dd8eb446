"""A weight as an expression over stored tensors, evaluated a piece at a time.

Single files, adapters and other sources of weights describe what they hold as expressions; ``stream`` writes
them without holding a tensor whole, and what is ``Stored`` as the package wants it is not written at all.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from conversions.checkpoint.element_types import ELEMENT_TYPES, Numbers
from conversions.checkpoint.safetensors_header import StoredTensor
from conversions.errors import ConversionError

Read: TypeAlias = Callable[[StoredTensor, int, int], Numbers]
"""Reads ``count`` elements of a stored tensor from element ``first`` on, flat: float16, float32 or float64,
with bfloat16 widened to float32."""

# Rows per strip while transposing: thin strips keep reads and writes in the cache.
# Measured on 1280x1280 float16: 1.6 G elements/s against 0.5 G for one strided copy.
_STRIP = 64


@dataclass(frozen=True, kw_only=True)
class Expression(ABC):
    """How the values of one weight come from stored tensors; ``repr`` identifies it."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Dimensions of the result."""

    @property
    @abstractmethod
    def dtype(self) -> str:
        """Element type of the result as safetensors names it; ``"F32"`` for what is computed."""

    @property
    @abstractmethod
    def operands(self) -> tuple[Expression, ...]:
        """The expressions that it is made of."""

    @abstractmethod
    def evaluate(self, first: int, count: int, read: Read) -> Numbers:
        """Return ``count`` elements from element ``first`` on, flat.

        Args:
            first: A multiple of ``granule``.
            count: A multiple of ``granule``, or all that is left.
            read: Reads stored tensors.
        """

    @property
    def granule(self) -> int:
        """The fewest elements that can be evaluated by themselves; whole rows for most computations."""
        return max((operand.granule for operand in self.operands), default=1)

    @property
    def size(self) -> int:
        """Number of elements of the result."""
        return math.prod(self.shape)

    @property
    def stored(self) -> Iterator[StoredTensor]:
        """All stored tensors below, in the order they are named."""
        for operand in self.operands:
            yield from operand.stored

    @property
    def stored_bytes(self) -> int:
        """Bytes that are read for the whole result."""
        return sum(tensor.size_bytes for tensor in self.stored)

    @property
    def name(self) -> str:
        """What to call it in messages: the first stored tensor's name."""
        return next(self.stored).name


Tensors: TypeAlias = Mapping[str, Expression]
"""The weights of a component by the names that diffusers and transformers give them."""


@dataclass(frozen=True, kw_only=True)
class Stored(Expression):
    """A tensor as it lies in a file."""

    tensor: StoredTensor

    @property
    def shape(self) -> tuple[int, ...]:
        """Dimensions of the tensor."""
        return self.tensor.shape

    @property
    def dtype(self) -> str:
        """Element type of the tensor."""
        return self.tensor.dtype

    @property
    def operands(self) -> tuple[Expression, ...]:
        """Nothing."""
        return ()

    @property
    def stored(self) -> Iterator[StoredTensor]:
        """The tensor."""
        yield self.tensor

    def evaluate(self, first: int, count: int, read: Read) -> Numbers:
        """Read the elements."""
        return read(self.tensor, first, count)

    @property
    def granule(self) -> int:
        """The elements that are stored together."""
        found = ELEMENT_TYPES.get(self.tensor.dtype)
        return found.block if found else 1


@dataclass(frozen=True, kw_only=True)
class Unary(Expression):
    """A computation on one weight; as it stands here it changes neither dimensions nor type."""

    of: Expression

    @property
    def shape(self) -> tuple[int, ...]:
        """Dimensions of the operand."""
        return self.of.shape

    @property
    def dtype(self) -> str:
        """Element type of the operand."""
        return self.of.dtype

    @property
    def operands(self) -> tuple[Expression, ...]:
        """The operand."""
        return (self.of,)


@dataclass(frozen=True, kw_only=True)
class Reshape(Unary):
    """The same elements in the same order, with other dimensions."""

    to: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """The new dimensions."""
        return self.to

    def evaluate(self, first: int, count: int, read: Read) -> Numbers:
        """Evaluate the operand."""
        return self.of.evaluate(first, count, read)


@dataclass(frozen=True, kw_only=True)
class Transpose(Unary):
    """A matrix with rows and columns exchanged; axes of length one do not count."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Dimensions of the operand in reverse."""
        return self.of.shape[::-1]

    @property
    def granule(self) -> int:
        """All elements: every row of the operand becomes a column."""
        return max(1, self.size)

    def evaluate(self, first: int, count: int, read: Read) -> Numbers:
        """Evaluate the whole operand and transpose it."""
        matrix = self.of.evaluate(first, count, read)
        matrix = matrix.reshape([size for size in self.of.shape if size != 1] or [1])
        result = np.empty(matrix.shape[::-1], matrix.dtype)
        for row in range(0, matrix.shape[0], _STRIP):
            result[..., row : row + _STRIP] = matrix[row : row + _STRIP].T
        return result.reshape(-1)


@dataclass(frozen=True, kw_only=True)
class Concat(Expression):
    """Several tensors one after the other along their first axis."""

    parts: tuple[Expression, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Dimensions of the parts, their first ones added up."""
        return (sum(part.shape[0] for part in self.parts), *self.parts[0].shape[1:])

    @property
    def dtype(self) -> str:
        """Element type of the parts; ``"F32"`` where they differ."""
        found = {part.dtype for part in self.parts}
        return found.pop() if len(found) == 1 else "F32"

    @property
    def operands(self) -> tuple[Expression, ...]:
        """The parts."""
        return self.parts

    @property
    def granule(self) -> int:
        """One element: parts that want more are evaluated from where their granule begins."""
        return 1

    def evaluate(self, first: int, count: int, read: Read) -> Numbers:
        """Evaluate the parts that the elements lie in."""
        found, start = [], 0
        for part in self.parts:
            low, high = max(first, start) - start, min(first + count, start + part.size) - start
            if low < high:
                found.append(evaluate_range(part, low, high - low, read))
            start += part.size
        if self.dtype == "F32":
            found = [numbers.astype(np.float32) for numbers in found]
        return found[0] if len(found) == 1 else np.concatenate(found)


@dataclass(frozen=True, kw_only=True)
class Identity(Unary):
    """The identity matrix, in the place of a projection that a file leaves out because it changes nothing.

    Attributes:
        width: Rows and columns.
    """

    width: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows and columns."""
        return (self.width, self.width)

    @property
    def dtype(self) -> str:
        """Float32."""
        return "F32"

    @property
    def granule(self) -> int:
        """One element."""
        return 1

    def evaluate(self, first: int, count: int, read: Read) -> Numbers:
        """Return zeros and ones; ``of`` only says where the matrix belongs."""
        del read
        places = np.arange(first, first + count)
        found: Numbers = (places // self.width == places % self.width).astype(np.float32)
        return found


@dataclass(frozen=True, kw_only=True)
class Rows(Unary):
    """A range of rows along the first axis."""

    first: int
    last: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Dimensions of the operand, with fewer rows."""
        return (self.last - self.first, *self.of.shape[1:])

    @property
    def granule(self) -> int:
        """One element: operands that want more are evaluated from where their granule begins."""
        return 1

    def evaluate(self, first: int, count: int, read: Read) -> Numbers:
        """Evaluate the rows that the elements lie in."""
        start = self.first * math.prod(self.of.shape[1:])
        return evaluate_range(self.of, start + first, count, read)


@dataclass(frozen=True, kw_only=True)
class Scale(Unary):
    """A tensor times a number."""

    factor: float

    @property
    def dtype(self) -> str:
        """Float32."""
        return "F32"

    def evaluate(self, first: int, count: int, read: Read) -> Numbers:
        """Evaluate the operand and multiply in float32."""
        numbers: Numbers = self.of.evaluate(first, count, read).astype(np.float32) * np.float32(self.factor)
        return numbers


@dataclass(frozen=True, kw_only=True)
class ScaleRows(Unary):
    """A tensor times one stored number, or its rows times one each."""

    scales: Expression

    @property
    def dtype(self) -> str:
        """Float32."""
        return "F32"

    @property
    def operands(self) -> tuple[Expression, ...]:
        """The tensor and its scales."""
        return (self.of, self.scales)

    def evaluate(self, first: int, count: int, read: Read) -> Numbers:
        """Evaluate the tensor and multiply in float32."""
        numbers = self.of.evaluate(first, count, read).astype(np.float32)
        scales = self.scales.evaluate(0, self.scales.size, read).astype(np.float32)
        if scales.size > 1:
            width = self.size // self.shape[0]
            scales = scales[np.arange(first, first + count) // width]
        product: Numbers = numbers * scales
        return product


def evaluate_range(expression: Expression, first: int, count: int, read: Read) -> Numbers:
    """Evaluate any range of elements, also one that does not begin and end where a granule does.

    Args:
        expression: What to evaluate.
        first: First element.
        count: How many elements.
        read: Reads stored tensors.
    """
    granule = expression.granule
    start = first // granule * granule
    end = min(expression.size, -(-(first + count) // granule) * granule)
    return expression.evaluate(start, end - start, read)[first - start : first - start + count]


def rows(tensor: StoredTensor, first: int, last: int) -> Stored:
    """Return a range of a stored tensor's rows, which lies in the file as a tensor of its own.

    Args:
        tensor: Stored whole.
        first: First row along the first axis.
        last: Behind the last row.

    Raises:
        ConversionError: ``weights.dtype``; its blocks do not end where rows do.
    """
    row_bytes, rest = divmod(tensor.size_bytes, tensor.shape[0])
    if rest:
        raise ConversionError(
            "weights.dtype",
            f"The tensor {tensor.name} is stored as {tensor.dtype} in blocks that its rows share.",
            "Use this model in another precision.",
        )
    return Stored(
        tensor=StoredTensor(
            name=tensor.name,
            file=tensor.file,
            dtype=tensor.dtype,
            shape=(last - first, *tensor.shape[1:]),
            offset=tensor.offset + first * row_bytes,
            size_bytes=(last - first) * row_bytes,
        )
    )


def row_range(of: Expression, first: int, last: int) -> Expression:
    """Return a range of the rows of a tensor that is stored, with or without scales.

    Args:
        of: The tensor.
        first: First row along the first axis.
        last: Behind the last row.

    Raises:
        ConversionError: ``weights.dtype``; its blocks do not end where rows do. ``weights.shape``; it has
            fewer rows.
    """
    if not of.shape or last > of.shape[0]:
        raise ConversionError(
            "weights.shape",
            f"The tensor {of.name} has the shape {list(of.shape)}; it must hold {last} rows or more.",
            "Download the file again.",
        )
    if isinstance(of, ScaleRows):
        scales = of.scales if of.scales.size == 1 else row_range(of.scales, first, last)
        return ScaleRows(of=row_range(of.of, first, last), scales=scales)
    assert isinstance(of, Stored)
    return rows(of.tensor, first, last)


def as_expressions(tensors: Mapping[str, StoredTensor]) -> dict[str, Expression]:
    """Return stored tensors as expressions under their own names."""
    return {name: Stored(tensor=tensor) for name, tensor in tensors.items()}


def all_stored(expressions: Iterable[Expression]) -> list[StoredTensor]:
    """Return the stored tensors below some expressions, each once, in the order of their bytes."""
    found = {(tensor.file, tensor.offset): tensor for each in expressions for tensor in each.stored}
    return [found[place] for place in sorted(found)]

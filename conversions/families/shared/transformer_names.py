"""Names and parts of a transformer in its original release to those of diffusers, by a table of modules."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from conversions.errors import ConversionError
from conversions.weights.expression import Concat, Expression, Tensors, row_range


@dataclass(frozen=True, kw_only=True)
class Parts:
    """A layer that diffusers has as several: their rows lie one after the other.

    Attributes:
        modules: The layers, in this order.
        rows: How many rows each has; all equally many when empty.
    """

    modules: tuple[str, ...]
    rows: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Halves:
    """A modulation that gives shift and scale, where diffusers has scale and shift.

    Attributes:
        module: The layer.
    """

    module: str


Target: TypeAlias = str | Parts | Halves


def renamed(tensors: Tensors, modules: Mapping[str, Target]) -> Tensors:
    """Return tensors by the names of diffusers; those that the table does not know keep theirs.

    Args:
        tensors: By their original names, without prefix.
        modules: What becomes of each layer, or of a tensor by its whole name.

    Raises:
        ConversionError: ``weights.shape`` for a tensor that cannot be divided, ``weights.ambiguous`` for two
            of one name.
    """
    found: dict[str, Expression] = {}
    for name, each in tensors.items():
        for new, expression in _of_one(name, each, modules):
            if new in found:
                raise ConversionError(
                    "weights.ambiguous",
                    f"The file holds two tensors for {new}; one is {name}.",
                    "Download the file again, or take another.",
                )
            found[new] = expression
    return found


def _of_one(name: str, each: Expression, modules: Mapping[str, Target]) -> list[tuple[str, Expression]]:
    whole = modules.get(name)
    if isinstance(whole, str):
        return [(whole, each)]
    module, _, kind = name.rpartition(".")
    target = modules.get(module)
    # The original releases call the weight of an RMS norm its scale.
    kind = "weight" if kind == "scale" else kind
    match target:
        case None:
            return [(name, each)]
        case str():
            return [(f"{target}.{kind}", each)]
        case Parts():
            names = [f"{part}.{kind}" for part in target.modules]
            return list(zip(names, _divided(each, target), strict=True))
        case Halves():
            size = _size(each, 2)
            scale, shift = row_range(each, size, 2 * size), row_range(each, 0, size)
            return [(f"{target.module}.{kind}", Concat(parts=(scale, shift)))]


def _divided(each: Expression, target: Parts) -> list[Expression]:
    counts = target.rows or (_size(each, len(target.modules)),) * len(target.modules)
    if not each.shape or sum(counts) != each.shape[0]:
        raise _wrong_shape(each, f"{sum(counts)} rows")
    found, first = [], 0
    for count in counts:
        found.append(row_range(each, first, first + count))
        first += count
    return found


def _size(each: Expression, parts: int) -> int:
    if not each.shape or not each.shape[0] or each.shape[0] % parts:
        raise _wrong_shape(each, f"a multiple of {parts} rows")
    return each.shape[0] // parts


def _wrong_shape(each: Expression, wanted: str) -> ConversionError:
    return ConversionError(
        "weights.shape",
        f"The tensor {each.name} has the shape {list(each.shape)}; it must have {wanted}.",
        "Download the file again.",
    )


def count_of(tensors: Tensors, blocks: str) -> int:
    """Return how many blocks there are: one more than the largest number behind ``blocks`` and a dot."""
    found = re.compile(re.escape(blocks) + r"\.(\d{1,3})\.")
    return max((int(match[1]) + 1 for name in tensors if (match := found.match(name))), default=0)


def rows_of(tensors: Tensors, name: str) -> int | None:
    """Return the rows of a matrix or the length of a vector; None where there is none."""
    each = tensors.get(name)
    return each.shape[0] if each is not None and each.shape and each.shape[0] else None


def columns_of(tensors: Tensors, name: str) -> int | None:
    """Return the columns of a matrix, or the input channels of a convolution; None where there is none."""
    each = tensors.get(name)
    return each.shape[1] if each is not None and len(each.shape) > 1 and each.shape[1] else None


def known(**fields: object) -> dict[str, object]:
    """Return the fields that the tensors tell: those that are not None."""
    return {name: value for name, value in fields.items() if value is not None}

"""Sizes of the parts of a cut graph for an image, and the memory of the results between parts."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import onnx_ir as ir

from conversions.shape_inference import fix_sizes, static_shape
from conversions.tiling.cut import Cut, Piece
from conversions.tiling.windows import windows


def first_size(parts: Cut, sizes: Mapping[str, int]) -> tuple[int, int, int]:
    """Return the batch, and height and width of the lowest resolution of the pieces.

    Args:
        parts: The graph.
        sizes: Of the dimensions of its inputs, by name.
    """
    if parts.head is None:
        batch, height, width = (sizes.get(name) or int(name) for name in parts.dimensions)
    else:
        shape = static_shape(fix_sizes(parts.head, sizes).graph.outputs[0])
        assert shape is not None
        batch, _, height, width = shape
    return batch, height // parts.first_scale, width // parts.first_scale


def window_sizes(parts: Cut, piece: Piece, first: tuple[int, int, int], side: int) -> dict[str, int]:
    """Return the sizes of the dimensions of a piece's inputs, by name.

    Args:
        parts: The graph.
        piece: One of its pieces.
        first: As :func:`first_size` gives it.
        side: Of a tile, in pixels of the graph's output.
    """
    batch, height, width = first
    most = parts.window(piece, side)
    rows, columns = (
        next(windows(size * piece.scale, most, piece.halo)).read.length for size in (height, width)
    )
    found = {"batch": batch}
    for times in {*piece.inputs.values(), *piece.outputs.values()}:
        found |= {f"height_{times}": rows * times, f"width_{times}": columns * times}
    return found


def kept_bytes(parts: Cut, first: tuple[int, int, int]) -> int:
    """Return the most main memory that results between parts take, in bytes.

    Args:
        parts: The graph.
        first: As :func:`first_size` gives it.
    """
    scale, begin = parts.first_scale, parts.pieces[0].model.graph.inputs[:1]
    values = begin if parts.head is None else parts.head.graph.outputs
    kept = {str(value.name): _bytes(value, scale, first) for value in values}
    most = sum(kept.values())
    for piece in parts.pieces:
        given = {str(value.name): value for value in piece.model.graph.outputs}
        kept |= {
            name: _bytes(given[name], piece.scale * times, first) for name, times in piece.outputs.items()
        }
        most = max(most, sum(kept.values()))
        kept = {name: size for name, size in kept.items() if name not in piece.last_read}
    return most


def _bytes(value: ir.Value, scale: int, first: tuple[int, int, int]) -> int:
    batch, height, width = first
    shape = value.shape
    assert shape is not None and isinstance(shape[1], int) and value.dtype is not None
    return int(prod((batch, shape[1], height * scale, width * scale)) * value.dtype.itemsize)

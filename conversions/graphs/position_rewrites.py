"""How layers are written that tell tokens where they stand: learned tables, by distance or cut to a size.

This module imports torch; only ``trace`` imports it, through ``export_rewrites``, whose rule holds here too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from onnxscript import opset18 as op
from torch import Tensor


@torch.library.custom_op("sdsetup::relative_bias", mutates_args=())
def relative_bias(table: Tensor, tokens: Tensor, buckets: list[int]) -> Tensor:
    """Look attention biases up by the distance from a token to another.

    Args:
        table: Learned biases, ``[buckets, heads]``.
        tokens: ``[batch, sequence]``.
        buckets: The table's row for each distance from ``-n`` to ``n``; longer distances count as ``n``.

    Returns:
        ``[batch, heads, sequence, sequence]``.

    Source: Raffel et al. 2020, "Exploring the Limits of Transfer Learning", arXiv:1910.10683, section 2.1.
    """
    batch, sequence = tokens.shape
    farthest = len(buckets) // 2
    places = torch.arange(sequence)
    distance = (places[None, :] - places[:, None]).clamp(-farthest, farthest)
    bias = table[torch.tensor(buckets)[distance + farthest]].permute(2, 0, 1)
    return bias[None].expand(batch, -1, -1, -1).clone()


@relative_bias.register_fake
def _(table: Tensor, tokens: Tensor, buckets: list[int]) -> Tensor:
    del buckets
    batch, sequence = tokens.shape
    return table.new_empty(batch, table.shape[1], sequence, sequence)


@torch.library.custom_op("sdsetup::central_positions", mutates_args=())
def central_positions(table: Tensor, like: Tensor, side: int) -> Tensor:
    """Cut an image's positions out of the middle of a square table.

    Args:
        table: ``[1, side * side, width]``, row by row.
        like: A tensor ``[batch, channels, rows, columns]`` with the size that is wanted.
        side: Rows and columns of the table.

    Returns:
        ``[1, rows * columns, width]``.

    Source: Esser et al. 2024, arXiv:2403.03206, appendix B.2; ``PatchEmbed.cropped_pos_embed`` of diffusers.
    """
    rows, columns = like.shape[2:]
    top, left = (side - rows) // 2, (side - columns) // 2
    grid = table.reshape(1, side, side, -1)[:, top : top + rows, left : left + columns]
    return grid.reshape(1, rows * columns, -1).clone()


@central_positions.register_fake
def _(table: Tensor, like: Tensor, side: int) -> Tensor:
    del side
    return table.new_empty(1, like.shape[2] * like.shape[3], table.shape[2])


def rotary_tables(length: int, size: int, theta: float) -> tuple[Tensor, Tensor]:
    """Return cosines and sines of the angles of places in a text, float32 ``[length, size / 2]``.

    Args:
        length: Tokens.
        size: Of a head.
        theta: Base of the frequencies.

    Source: Su et al. 2021, arXiv:2104.09864, in float32 as transformers computes them.
    """
    exponents = torch.arange(0, size, 2, dtype=torch.float32) / size
    places = torch.arange(length, dtype=torch.float32)
    angles = places[:, None] * (1.0 / theta**exponents)[None]
    return angles.cos(), angles.sin()


def _ints(*values: int) -> Any:
    return op.Constant(value_ints=list(values))


def _int32(values: Any) -> Any:
    # DirectML looks int32 up faster than int64, and some drivers fail on the latter (DirectML issue 727).
    return op.Constant(value=ir.tensor(np.array(values, np.int32)))


def _write_relative_bias(table: Any, tokens: Any, buckets: list[int]) -> Any:
    """Everything but the two Gathers is a constant once the length is fixed."""
    farthest = len(buckets) // 2
    sequence = op.Shape(tokens, start=1, end=2)
    places = op.Cast(
        op.Range(op.Constant(value_int=0), op.Squeeze(sequence), op.Constant(value_int=1)),
        to=ir.DataType.INT32,
    )
    distance = op.Sub(op.Unsqueeze(places, _ints(0)), op.Unsqueeze(places, _ints(1)))
    index = op.Add(op.Clip(distance, _int32(-farthest), _int32(farthest)), _int32(farthest))
    by_distance = op.Gather(table, _int32(buckets), axis=0)
    bias = op.Transpose(op.Gather(by_distance, index, axis=0), perm=[2, 0, 1])
    batch, heads = op.Shape(tokens, start=0, end=1), _ints(int(table.shape[1]))
    return op.Expand(op.Unsqueeze(bias, _ints(0)), op.Concat(batch, heads, sequence, sequence, axis=0))


def _write_central_positions(table: Any, like: Any, side: int) -> Any:
    grid = op.Reshape(table, _ints(side, side, -1))
    size = op.Shape(like, start=2, end=4)
    start = op.Div(op.Sub(_ints(side, side), size), _ints(2))
    cut = op.Slice(grid, start, op.Add(start, size), _ints(0, 1))
    return op.Reshape(cut, _ints(1, -1, int(table.shape[2])))


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """Return this module's part of the table for ``torch.onnx.export``."""
    own = torch.ops.sdsetup
    return {
        own.relative_bias.default: _write_relative_bias,
        own.central_positions.default: _write_central_positions,
    }

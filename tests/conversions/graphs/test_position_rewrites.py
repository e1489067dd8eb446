"""Positions as the tracer writes them: those of any length and size."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from tests.conversions.graphs.traced_layers import agreeing, load_exporter, operators, random

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module", autouse=True)
def _exporter() -> None:
    load_exporter()


@pytest.mark.parametrize("length", [3, 9])
def test_biases_are_looked_up_by_distance(length: int) -> None:
    from conversions.graphs.position_rewrites import relative_bias

    table, buckets = random(5, 2), [4, 3, 3, 0, 1, 1, 2]
    expected = np.zeros((3, 2, length, length), np.float32)
    for here in range(length):
        for there in range(length):
            distance = min(max(there - here, -3), 3)
            expected[:, :, here, there] = table[buckets[distance + 3]]
    model = agreeing(
        lambda table, tokens: (relative_bias(table, tokens, buckets),),
        {"table": table.shape, "tokens": ("batch", "sequence")},
        {"table": table, "tokens": np.zeros((3, length), np.int32)},
        (expected,),
    )
    # DirectML looks int32 up.
    constants = [
        ir.convenience.get_const_tensor(value) for node in model.graph for value in node.inputs if value
    ]
    assert "INT32" in {
        each.dtype.name for each in constants if each is not None and each.size == len(buckets)
    }


@pytest.mark.parametrize(("rows", "columns"), [(4, 7), (3, 8)])
def test_positions_are_cut_out_of_the_middle(rows: int, columns: int) -> None:
    import torch

    from conversions.graphs.position_rewrites import central_positions

    side, width = 12, 3
    table = random(1, side * side, width)
    top, left = (side - rows) // 2, (side - columns) // 2
    grid = table.reshape(side, side, width)[top : top + rows, left : left + columns]
    model = agreeing(
        lambda like: (central_positions(torch.from_numpy(table), like, side),),
        {"like": ("batch", 2, "rows", "columns")},
        {"like": random(3, 2, rows, columns)},
        (grid.reshape(1, rows * columns, width),),
    )
    assert operators(model).count("Slice") == 1


def test_places_in_a_text_are_angles() -> None:
    import torch

    from conversions.graphs.position_rewrites import rotary_tables

    cos, sin = rotary_tables(3, 4, 100.0)
    angles = torch.tensor([[0, 0], [1, 0.1], [2, 0.2]])
    torch.testing.assert_close(cos, angles.cos())
    torch.testing.assert_close(sin, angles.sin())

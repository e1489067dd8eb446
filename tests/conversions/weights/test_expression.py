from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from conversions.checkpoint.safetensors_header import StoredTensor
from conversions.checkpoint.scaled_tensors import unscaled
from conversions.errors import ConversionError
from conversions.weights.expression import (
    Concat,
    Expression,
    Identity,
    Reshape,
    Scale,
    Stored,
    Transpose,
    all_stored,
    evaluate_range,
    row_range,
    rows,
)

RANDOM = np.random.default_rng(2)
MATRIX = RANDOM.standard_normal((6, 10)).astype(np.float32)
OTHER = RANDOM.standard_normal((3, 10)).astype(np.float32)
SCALES = RANDOM.standard_normal((6, 1)).astype(np.float32)
FILE = np.concatenate([MATRIX.reshape(-1), OTHER.reshape(-1), SCALES.reshape(-1)])


def stored(name: str, shape: tuple[int, ...], first: int, dtype: str = "F32") -> Stored:
    size_bytes = 4 * int(np.prod(shape, dtype=int))
    return Stored(
        tensor=StoredTensor(
            name=name, file="f", dtype=dtype, shape=shape, offset=4 * first, size_bytes=size_bytes
        )
    )


WHOLE = stored("m", (6, 10), 0)
OTHERS = stored("o", (3, 10), 60)


def read(tensor: StoredTensor, first: int, count: int) -> np.ndarray:
    begin = tensor.offset // 4 + first
    assert first + count <= tensor.size_bytes // 4
    return FILE[begin : begin + count]


def scaled(suffix: str, dtype: str, shape: tuple[int, ...]) -> Expression:
    """The matrix as float8 files hold it, with a scale for each row or for all."""
    tensors = {"x.weight": stored("w", (6, 10), 0, dtype), f"x.{suffix}": stored("s", shape, 90)}
    return unscaled(tensors)["x.weight"]


EXPRESSIONS: list[tuple[Expression, np.ndarray]] = [
    (WHOLE, MATRIX),
    (Reshape(of=WHOLE, to=(3, 20)), MATRIX.reshape(3, 20)),
    (Transpose(of=WHOLE), MATRIX.T),
    (Transpose(of=stored("m", (6, 10, 1, 1), 0)), MATRIX.T.reshape(1, 1, 10, 6)),
    (Concat(parts=(WHOLE, OTHERS)), np.concatenate([MATRIX, OTHER])),
    (Identity(of=OTHERS, width=7), np.eye(7)),
    (row_range(WHOLE, 2, 5), MATRIX[2:5]),
    (Concat(parts=(Transpose(of=WHOLE), Transpose(of=WHOLE))), np.concatenate([MATRIX.T, MATRIX.T])),
    (Scale(of=WHOLE, factor=0.25), MATRIX / 4),
    (rows(WHOLE.tensor, 2, 5), MATRIX[2:5]),
    (scaled("scale_weight", "F8_E4M3", (6, 1)), MATRIX * SCALES),
    (scaled("weight_scale", "F8_E5M2", ()), MATRIX * SCALES[0]),
]


@pytest.mark.parametrize(("expression", "expected"), EXPRESSIONS)
def test_any_range_of_an_expression_is_that_of_its_numbers(
    expression: Expression, expected: np.ndarray
) -> None:
    assert expression.shape == expected.shape
    assert expression.size == expected.size
    for first, count in ((0, expected.size), (0, 1), (7, 13), (expected.size - 1, 1)):
        found = evaluate_range(expression, first, count, read)
        np.testing.assert_allclose(found, expected.reshape(-1)[first : first + count], rtol=1e-6)


def test_a_range_of_rows_is_a_place_in_the_file() -> None:
    assert rows(WHOLE.tensor, 2, 5).tensor.offset == 2 * 40
    assert rows(WHOLE.tensor, 2, 5).tensor.size_bytes == 3 * 40
    with pytest.raises(ConversionError, match="blocks that its rows share"):
        rows(StoredTensor(name="q", file="f", dtype="Q8_0", shape=(3, 20), offset=0, size_bytes=68), 0, 1)


def test_what_is_stored_below_is_listed_once_in_the_order_of_bytes() -> None:
    assert [each.name for each in all_stored([Concat(parts=(OTHERS, WHOLE)), WHOLE])] == ["m", "o"]


def test_notes_of_scaled_files_are_left_out() -> None:
    tensors = dict.fromkeys(
        ("a.weight", "scaled_fp8", "b.weight_scale", "b.input_scale", "b.comfy_quant"), WHOLE
    )
    assert set(unscaled(tensors)) == {"a.weight"}


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({"x.weight": WHOLE, "x.weight.absmax": WHOLE}, "bitsandbytes"),
        ({"x.weight": WHOLE, "x.weight.quant_state.bitsandbytes__nf4": WHOLE}, "bitsandbytes"),
        ({"x.weight": stored("w", (6, 10), 0, "U8"), "x.weight_scale": WHOLE}, "cannot be read"),
        ({"x.weight": stored("w", (6, 10), 0, "F8_E4M3"), "x.weight_scale": OTHERS}, "cannot be read"),
    ],
)
def test_other_quantised_forms_are_refused_by_name(tensors: Mapping[str, Expression], said: str) -> None:
    with pytest.raises(ConversionError, match=said):
        unscaled(tensors)

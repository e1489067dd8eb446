from __future__ import annotations

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
    as_expressions,
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
SCALE = stored("s", (1,), 90)


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
    middle = (expected.size // 2, expected.size // 3)
    for first, count in ((0, expected.size), (0, 1), (7, 13), middle, (expected.size - 1, 1)):
        found = evaluate_range(expression, first, count, read)
        np.testing.assert_allclose(found, expected.reshape(-1)[first : first + count], rtol=1e-6)


def test_a_part_says_what_it_reads_and_as_what() -> None:
    half = stored("h", (2, 10), 0, "F16")
    assert Concat(parts=(half, half)).dtype == "F16"
    mixed = Concat(parts=(stored("h", (2, 10), 0, "F16"), OTHERS))
    assert mixed.dtype == "F32"
    assert Concat(parts=(half, stored("b", (2, 10), 0, "BF16"))).dtype == "F32"
    assert mixed.shape == (5, 10)
    assert Concat(parts=(rows(WHOLE.tensor, 0, 1), Reshape(of=OTHERS, to=(1, 30)))).shape == (2, 10)
    assert Transpose(of=half).dtype == "F16"
    assert Scale(of=half, factor=2.0).dtype == "F32"
    assert mixed.name == "h"
    assert mixed.stored_bytes == half.stored_bytes + OTHERS.tensor.size_bytes
    assert as_expressions({"a": WHOLE.tensor}) == {"a": WHOLE}


def test_parts_give_no_more_than_is_asked() -> None:
    both = Concat(parts=(WHOLE, OTHERS))
    for first, count in ((45, 30), (0, 60), (59, 2), (60, 1)):
        np.testing.assert_array_equal(both.evaluate(first, count, read), FILE[first : first + count])


def test_what_differs_in_type_becomes_float32() -> None:
    def read_as_stored(tensor: StoredTensor, first: int, count: int) -> np.ndarray:
        return read(tensor, first, count).astype({"F16": np.float16, "F32": np.float32}[tensor.dtype])

    half = stored("h", (6, 10), 0, "F16")
    mixed = Concat(parts=(half, OTHERS))
    assert mixed.evaluate(0, 10, read_as_stored).dtype == np.float32
    assert Concat(parts=(half, half)).evaluate(50, 20, read_as_stored).dtype == np.float16
    assert Transpose(of=half).evaluate(0, 60, read_as_stored).dtype == np.float16
    scaled_rows = unscaled({"x.weight": stored("w", (6, 10), 0, "F8_E4M3"), "x.weight_scale": SCALE})
    assert scaled_rows["x.weight"].dtype == "F32"


def test_blocks_and_whole_matrices_are_not_cut() -> None:
    blocks = Stored(
        tensor=StoredTensor(name="q", file="f", dtype="Q8_0", shape=(2, 64), offset=0, size_bytes=136)
    )
    asked: list[tuple[int, int]] = []

    def read_blocks(tensor: StoredTensor, first: int, count: int) -> np.ndarray:
        asked.append((first, count))
        return np.arange(first, first + count, dtype=np.float32)

    assert blocks.granule == 32
    assert Reshape(of=blocks, to=(128,)).granule == 32
    assert Transpose(of=blocks).granule == 128
    assert Concat(parts=(blocks, WHOLE)).granule == 1
    assert stored("unknown", (2,), 0, "I64").granule == 1
    assert list(evaluate_range(blocks, 33, 31, read_blocks)) == list(range(33, 64))
    assert list(evaluate_range(blocks, 31, 2, read_blocks)) == [31, 32]
    assert asked == [(32, 32), (0, 64)]


def test_matrices_of_more_rows_than_a_strip_are_transposed_whole() -> None:
    tall = np.arange(150 * 3, dtype=np.float32)
    transposed = Transpose(of=stored("t", (150, 3), 0))
    found = transposed.evaluate(0, 450, lambda _, first, count: tall[first : first + count])
    np.testing.assert_array_equal(found, tall.reshape(150, 3).T.reshape(-1))
    empty = Transpose(of=stored("e", (0, 3), 0))
    assert empty.granule == 1
    assert not evaluate_range(empty, 0, 0, read).size


def test_a_range_of_rows_is_a_place_in_the_file() -> None:
    assert rows(OTHERS.tensor, 1, 3).tensor == StoredTensor(
        name="o", file="f", dtype="F32", shape=(2, 10), offset=240 + 40, size_bytes=2 * 40
    )
    with pytest.raises(ConversionError, match="blocks that its rows share") as caught:
        rows(StoredTensor(name="q", file="f", dtype="Q8_0", shape=(3, 20), offset=0, size_bytes=68), 0, 1)
    assert caught.value.code == "weights.dtype"


def test_what_is_stored_below_is_listed_once_in_the_order_of_bytes() -> None:
    assert [each.name for each in all_stored([Concat(parts=(OTHERS, WHOLE)), WHOLE])] == ["m", "o"]

"""Bytes of every plain element type become the numbers that numpy and ml_dtypes read in them."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from conversions.checkpoint.element_types import ELEMENT_TYPES, element_type
from conversions.checkpoint.gguf_blocks import BLOCK_TYPES
from conversions.checkpoint.safetensors_header import StoredTensor
from conversions.errors import ConversionError

PLAIN = {
    "F16": np.float16,
    "F32": np.float32,
    "F64": np.float64,
    "BF16": ml_dtypes.bfloat16,
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F8_E5M2": ml_dtypes.float8_e5m2,
}


@pytest.mark.parametrize("name", PLAIN)
def test_plain_types_are_read_number_by_number(name: str) -> None:
    stored = np.array([0.0, 1.0, -2.5, 0.0625, 224.0], PLAIN[name])
    found = element_type(StoredTensor(name="w", file="f", dtype=name, shape=(5,), offset=0, size_bytes=0))
    assert found.block == 1
    assert found.bytes_of(5) == stored.nbytes
    numbers = found.decode(bytearray(stored.tobytes()))
    assert numbers.dtype == (PLAIN[name] if name in ("F16", "F64") else np.float32)
    np.testing.assert_array_equal(numbers, stored.astype(numbers.dtype))


def test_blocks_are_read_as_one_row_of_numbers() -> None:
    assert set(ELEMENT_TYPES) == {*PLAIN, *BLOCK_TYPES}
    for name, kind in BLOCK_TYPES.items():
        found = ELEMENT_TYPES[name]
        assert (found.block, found.block_bytes) == (kind.block, kind.block_bytes)
        assert found.bytes_of(3 * kind.block) == 3 * kind.block_bytes
        raw = np.arange(3 * kind.block_bytes, dtype=np.uint8)
        numbers = found.decode(bytearray(raw.tobytes()))
        assert numbers.shape == (3 * kind.block,)
        np.testing.assert_array_equal(numbers, kind.decode(raw.reshape(3, -1)).reshape(-1))


def test_other_types_are_refused_by_name() -> None:
    tensor = StoredTensor(name="ids", file="f", dtype="I64", shape=(1,), offset=0, size_bytes=8)
    with pytest.raises(ConversionError, match="ids is stored as I64") as caught:
        element_type(tensor)
    assert caught.value.code == "weights.dtype"
    assert "F16, F32" in (caught.value.hint or "")

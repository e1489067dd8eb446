from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from conversions.checkpoint.gguf_blocks import BLOCK_TYPES
from conversions.checkpoint.safetensors_header import StoredTensor
from conversions.weights.read_numbers import read_numbers


def stored(dtype: str, offset: int, size_bytes: int) -> StoredTensor:
    return StoredTensor(
        name="w", file="weights", dtype=dtype, shape=(64,), offset=offset, size_bytes=size_bytes
    )


def test_a_range_of_a_tensor_is_read_from_its_place(tmp_path: Path) -> None:
    numbers = np.arange(64, dtype=np.float16)
    (tmp_path / "file").write_bytes(b"12345" + numbers.tobytes() + b"rest")
    read = read_numbers({"weights": tmp_path / "file"})
    np.testing.assert_array_equal(read(stored("F16", 5, 128), 10, 20), numbers[10:30])
    np.testing.assert_array_equal(read(stored("F16", 5, 128), 0, 64), numbers)
    assert not read(stored("F16", 5, 128), 64, 0).size


def test_blocks_are_read_whole(tmp_path: Path) -> None:
    kind = BLOCK_TYPES["Q8_0"]
    raw = np.random.default_rng(1).integers(0, 60, (2, kind.block_bytes), dtype=np.uint8)
    (tmp_path / "file").write_bytes(b"1" + raw.tobytes())
    read = read_numbers({"weights": tmp_path / "file"})
    np.testing.assert_array_equal(read(stored("Q8_0", 1, 68), 32, 32), kind.decode(raw[1:])[0])


def test_a_file_that_ends_too_early_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(99))
    read = read_numbers({"weights": tmp_path / "file"})
    assert read(stored("F32", 3, 256), 0, 24).size == 24
    with pytest.raises(EOFError, match="file ends within w"):
        read(stored("F32", 3, 256), 0, 25)

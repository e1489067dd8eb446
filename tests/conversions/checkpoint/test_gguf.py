"""GGUF files, written and dequantised by ggml's own Python package as the second opinion."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from conversions.checkpoint import gguf as tables
from conversions.checkpoint.element_types import ELEMENT_TYPES, element_type
from conversions.checkpoint.gguf import read_gguf
from conversions.checkpoint.gguf_blocks import BLOCK_TYPES
from conversions.checkpoint.storage import Folder
from conversions.errors import ConversionError

gguf = pytest.importorskip("gguf", reason="ggml's package is not among those for Windows Python")

FAR = (0, 1, 2**31, 2**63, 2**64 - 1)
RANDOM = np.random.default_rng(17)


def write(path: Path, tensors: dict[str, tuple[np.ndarray, str]], **arrays: list[int]) -> None:
    """Write tensors, each with the name of its type."""
    writer = gguf.GGUFWriter(path, "sdxl")
    writer.add_array("tokenizer.words", ["a", "word", "é"])
    writer.add_uint32("general.file_type", 1)
    for key, values in arrays.items():
        writer.add_array(f"comfy.gguf.orig_shape.{key}", values)
    for name, (numbers, kind) in tensors.items():
        dtype = gguf.GGMLQuantizationType[kind]
        writer.add_tensor(name, gguf.quants.quantize(numbers, dtype), raw_dtype=dtype)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def numbers_of(path: Path, name: str) -> np.ndarray:
    tensor = read_gguf(Folder(path.parent), path.name).tensors[name]
    content = path.read_bytes()[tensor.offset : tensor.offset + tensor.size_bytes]
    return np.asarray(element_type(tensor).decode(bytearray(content)), np.float32).reshape(tensor.shape)


@pytest.mark.parametrize("kind", ["F32", "F16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"])
def test_tensors_are_those_that_were_written(tmp_path: Path, kind: str) -> None:
    matrix = RANDOM.standard_normal((6, 256)).astype(np.float32)
    vector = RANDOM.standard_normal(32).astype(np.float32)
    write(tmp_path / "m.gguf", {"w": (matrix, kind), "b": (vector, "F32")})
    dtype = gguf.GGMLQuantizationType[kind]
    expected = gguf.quants.dequantize(gguf.quants.quantize(matrix, dtype), dtype)
    np.testing.assert_allclose(numbers_of(tmp_path / "m.gguf", "w"), expected, rtol=1e-6, atol=1e-7)
    np.testing.assert_array_equal(numbers_of(tmp_path / "m.gguf", "b"), vector)
    table = read_gguf(Folder(tmp_path), "m.gguf")
    assert table.metadata["general.architecture"] == "sdxl"


@pytest.mark.parametrize("kind", sorted(BLOCK_TYPES))
def test_any_block_is_read_as_ggml_reads_it(kind: str) -> None:
    layout = BLOCK_TYPES[kind]
    blocks = RANDOM.integers(0, 256, (50, layout.block_bytes), dtype=np.uint8)
    halves = {"Q6_K": [208], "Q4_1": [0, 2], "Q5_1": [0, 2], "Q4_K": [0, 2], "Q5_K": [0, 2]}.get(kind, [0])
    for place in halves:  # usual scales: random bytes would be NaN now and then
        blocks[:, place : place + 2] = RANDOM.standard_normal((50, 1)).astype(np.float16).view(np.uint8)
    dtype = gguf.GGMLQuantizationType[kind]
    expected = gguf.quants.dequantize(blocks, dtype).reshape(50, layout.block)
    decoded = layout.decode(blocks)
    np.testing.assert_allclose(decoded, expected, rtol=1e-5, atol=1e-5)
    assert decoded.dtype == np.float32
    for count in (1, 2, 3):
        np.testing.assert_array_equal(layout.decode(blocks[:count]), decoded[:count])
    assert ELEMENT_TYPES[kind].bytes_of(layout.block * 3) == layout.block_bytes * 3


def test_types_have_ggmls_numbers() -> None:
    theirs = {kind.value: kind.name for kind in gguf.GGMLQuantizationType}
    # Later types are called by their number.
    assert {number: name for number, name in theirs.items() if number < 40} == tables._TYPES


def test_metadata_of_every_type_is_read(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "sdxl")
    values = {
        "uint8": 200, "int8": -100, "uint16": 60_000, "int16": -30_000, "uint32": 4 << 29,
        "int32": -(1 << 30), "uint64": 1 << 63, "int64": -(1 << 62),
        "float32": 0.5, "float64": 0.1, "bool": True, "string": "é",
    }  # fmt: skip
    for kind, value in values.items():
        getattr(writer, f"add_{kind}")(f"a.{kind}", value)
    writer.add_array("a.numbers", [1, 2, 3])
    writer.add_array("a.words", ["one", "two"])
    writer.add_uint32("z.last", 7)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    found = read_gguf(Folder(tmp_path), "m.gguf")
    assert found.metadata["general.architecture"] == "sdxl"
    assert {key[2:]: value for key, value in found.metadata.items() if key.startswith("a.")} == {
        **values,
        "numbers": [1, 2, 3],
    }
    assert found.metadata["z.last"] == 7
    assert not found.tensors


def test_tensors_begin_where_the_files_alignment_says(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "sdxl")
    writer.add_custom_alignment(256)
    matrices = {name: RANDOM.standard_normal((3, 5)).astype(np.float32) for name in "ab"}
    for name, matrix in matrices.items():
        writer.add_tensor(name, matrix)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    for name, matrix in matrices.items():
        np.testing.assert_array_equal(numbers_of(tmp_path / "m.gguf", name), matrix)
    tensors = read_gguf(Folder(tmp_path), "m.gguf").tensors
    assert [tensor.offset % 256 for tensor in tensors.values()] == [0, 0]
    assert list(tensors) == ["a", "b"]


def test_a_convolution_that_was_stored_in_rows_gets_its_dimensions_back(tmp_path: Path) -> None:
    weight = RANDOM.standard_normal((64, 4, 3, 3)).astype(np.float32)
    rows = weight.reshape(-1, 256)
    write(tmp_path / "m.gguf", {"conv": (rows, "Q8_0")}, conv=[64, 4, 3, 3])
    found = numbers_of(tmp_path / "m.gguf", "conv")
    assert found.shape == weight.shape
    np.testing.assert_allclose(found, weight, atol=0.05)


def refused(path: Path) -> ConversionError:
    with pytest.raises(ConversionError) as caught:
        read_gguf(Folder(path.parent), path.name)
    return caught.value


def test_what_cannot_be_read_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    write(path, {"w": (RANDOM.standard_normal((2, 256)).astype(np.float32), "Q8_0")}, w=[3, 5])
    assert "dimensions that its metadata gives to w" in refused(path).message
    write(path, {"w": (RANDOM.standard_normal((2, 256)).astype(np.float32), "Q8_0")})
    whole = path.read_bytes()
    path.write_bytes(whole[:-40])
    assert refused(path).code == "checkpoint.truncated"
    at = whole.index(struct.pack("<QI", 2, gguf.GGMLQuantizationType.Q8_0))
    for kind, said in ((10, "Q2_K"), (99, "type 99")):
        path.write_bytes(whole[: at + 8] + struct.pack("<I", kind) + whole[at + 12 :])
        error = refused(path)
        assert error.code == "weights.dtype"
        assert said in error.message
    path.write_bytes(b"GGUF" + struct.pack("<I", 1) + whole[8:])
    assert "version 1" in refused(path).message
    path.write_bytes(b"PK" + whole[2:])
    assert "no GGUF file" in refused(path).message


def sound(path: Path) -> bytes:
    """Write a small file to damage, and return its bytes."""
    tensors = {
        f"t{index}": (RANDOM.standard_normal((2, 32)).astype(np.float32), "Q4_0") for index in range(5)
    }
    write(path, tensors, t1=[64])
    return path.read_bytes()


def damaged(whole: bytes, seed: int) -> bytes:
    """Change one to three places of a file's table; equal seeds make equal changes."""
    random = np.random.default_rng(seed)
    content = bytearray(whole)
    for _ in range(int(random.integers(1, 4))):
        place = int(random.integers(0, 500))
        choice = int(random.integers(0, 4))
        if choice == 0:
            content[place] ^= 1 << int(random.integers(0, 8))
        elif choice == 1:
            content[place : place + 8] = struct.pack("<Q", FAR[int(random.integers(0, len(FAR)))])
        elif choice == 2:
            del content[place : place + int(random.integers(1, 9))]
        else:
            content[place:place] = random.bytes(int(random.integers(1, 9)))
    return bytes(content)


def outcome(path: Path) -> str:
    """Read a table, and see that its tensors lie inside of the file; or return why it is refused."""
    try:
        tensors = read_gguf(Folder(path.parent), path.name).tensors
    except ConversionError as error:
        return error.code
    assert all(each.offset + each.size_bytes <= path.stat().st_size for each in tensors.values())
    return "read"


def test_no_mutated_table_does_anything_but_be_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read damaged tables: every one is read inside the file or refused, with bounded memory and time."""
    monkeypatch.setattr(tables, "_READ_AT_ONCE_BYTES", 4096)
    path = tmp_path / "m.gguf"
    whole, outcomes = sound(path), set()
    for seed in range(1500):
        path.write_bytes(damaged(whole, seed))
        outcomes.add(outcome(path))
    assert {"read", "checkpoint.corrupt"} <= outcomes

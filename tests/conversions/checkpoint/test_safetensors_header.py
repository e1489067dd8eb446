"""The table of a safetensors file: what the safetensors library refuses is refused here, with a reason."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from conversions.checkpoint.safetensors_header import read_header, read_metadata
from conversions.checkpoint.storage import Folder
from conversions.errors import ConversionError

FILE = "model.safetensors"


def write(folder: Path, table: str | dict[str, Any], data: bytes = bytes(16)) -> Folder:
    text = (table if isinstance(table, str) else json.dumps(table)).encode()
    (folder / FILE).write_bytes(struct.pack("<Q", len(text)) + text + data)
    return Folder(folder)


def entry(first: int, last: int, shape: list[Any] | None = None, dtype: str = "U8") -> dict[str, Any]:
    return {
        "dtype": dtype,
        "shape": [last - first] if shape is None else shape,
        "data_offsets": [first, last],
    }


def test_what_the_library_writes_is_read(tmp_path: Path) -> None:
    tensors = {
        "matrix": np.arange(6, dtype=np.float32).reshape(2, 3),
        "scalar": np.array(1.0, np.float16),
        "empty": np.empty((0, 4), np.float32),
    }
    save_file(tensors, tmp_path / FILE, metadata={"format": "pt"})
    found = read_header(Folder(tmp_path), FILE)
    assert {name: each.shape for name, each in found.items()} == {
        name: value.shape for name, value in tensors.items()
    }
    raw = (tmp_path / FILE).read_bytes()
    matrix = found["matrix"]
    assert raw[matrix.offset : matrix.offset + matrix.size_bytes] == tensors["matrix"].tobytes()


BAD: dict[str, tuple[Any, str]] = {
    "overlap": ({"a": entry(0, 8), "b": entry(4, 16)}, "b shares bytes with another tensor"),
    "one within another": ({"a": entry(0, 16), "b": entry(4, 8)}, "b shares bytes"),
    "gap": ({"a": entry(0, 8), "b": entry(12, 16)}, "b leaves a gap"),
    "gap at the start": ({"a": entry(4, 16)}, "a leaves a gap"),
    "bytes of nobody": ({"a": entry(0, 8)}, "8 bytes at its end"),
    "twice": ('{"a": %s, "a": %s}' % ((json.dumps(entry(0, 16)),) * 2), "holds a twice"),
    "backwards": ({"a": entry(16, 0, [16])}, "a has no usable place"),
    "negative": ({"a": entry(-4, 12)}, "a has no usable place"),
    "fraction": ({"a": {"dtype": "U8", "shape": [16], "data_offsets": [0, 16.0]}}, "no usable place"),
    "three offsets": ({"a": {"dtype": "U8", "shape": [16], "data_offsets": [0, 8, 16]}}, "no usable place"),
    "shape": ({"a": entry(0, 16, [4, 5])}, "takes 16 bytes, which its shape does not"),
    "huge shape": ({"a": entry(0, 16, [1 << 62] * 8)}, "takes 16 bytes"),
    "true as a size": ({"a": entry(0, 16, [True, 16])}, "no usable shape"),
    "many dimensions": ({"a": entry(0, 16, [1] * 1000 + [16])}, "no usable shape"),
    "unknown type": ({"a": entry(0, 16, dtype="Q4")}, "type 'Q4'"),
    "a list as a type": ({"a": entry(0, 16, dtype=[])}, "type []"),  # type: ignore[arg-type]
    "no object": ({"a": 7}, "type None"),
    "numbers as metadata": ({"__metadata__": {"x": 1}, "a": entry(0, 16)}, "something else than texts"),
    "a list as metadata": ({"__metadata__": ["x"], "a": entry(0, 16)}, "something else than texts"),
    "half a character": ({"\ud83d": entry(0, 16)}, "table of tensors cannot be read"),
    "half a character in a text": (
        {"__metadata__": {"x": "\ud83d"}, "a": entry(0, 16)},
        "table of tensors cannot be read",
    ),
    "a mark before it": ("\ufeff" + json.dumps({"a": entry(0, 16)}), "table of tensors cannot be read"),
    "a number that is none": ('{"__metadata__": NaN}', "something else than texts"),
    "a list": ("[]", "table of tensors cannot be read"),
    "nested": ("[" * 100_000, "table of tensors cannot be read"),
    "many tensors": ('{"a": [%s1]}' % ('"data_offsets",' * 200_001), "more than 200,000 tensors"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_table_that_cannot_be_trusted_is_refused_with_its_reason(case: str, tmp_path: Path) -> None:
    table, reason = BAD[case]
    storage = write(tmp_path, table)
    with pytest.raises(ConversionError) as caught:
        read_header(storage, FILE)
    assert caught.value.code == "checkpoint.corrupt"
    assert reason in caught.value.message
    assert caught.value.hint


def test_the_largest_table_that_the_format_allows_is_read(tmp_path: Path) -> None:
    table = {"a": entry(0, 16, [1] * 63 + [16]), "b": entry(16, 16, [0, (1 << 63) - 1], "F4")}
    found = read_header(write(tmp_path, table), FILE)
    assert found["b"].offset == found["a"].offset + 16
    assert (found["b"].file, found["b"].dtype, found["b"].name) == (FILE, "F4", "b")
    with pytest.raises(ConversionError, match="a has no usable shape"):
        read_header(write(tmp_path, {"a": entry(0, 16, [1] * 64 + [16])}), FILE)
    with pytest.raises(ConversionError, match="a has no usable shape"):
        read_header(write(tmp_path, {"a": entry(0, 0, [0, 1 << 63])}), FILE)
    (tmp_path / FILE).write_bytes(struct.pack("<Q", 2) + b"{}")
    assert not read_header(Folder(tmp_path), FILE)


BITS = {
    **dict.fromkeys(("F4",), 4),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 16),
    **dict.fromkeys(("I32", "U32", "F32"), 32),
    **dict.fromkeys(("I64", "U64", "F64", "C64"), 64),
}


@pytest.mark.parametrize(("dtype", "bits"), BITS.items())
def test_elements_are_as_large_as_the_library_has_them(dtype: str, bits: int, tmp_path: Path) -> None:
    last = 24 * bits // 8
    storage = write(tmp_path, {"a": entry(0, last, [24], dtype)}, bytes(last))
    with safetensors.safe_open(tmp_path / FILE, "np") as opened:
        assert opened.get_slice("a").get_dtype() == dtype
    assert read_header(storage, FILE)["a"].size_bytes == last
    with pytest.raises(ConversionError, match="which its shape does not"):
        read_header(write(tmp_path, {"a": entry(0, last + 3, [24], dtype)}, bytes(last + 3)), FILE)


def test_the_name_that_is_there_twice_is_named(tmp_path: Path) -> None:
    first, second = json.dumps(entry(0, 8)), json.dumps(entry(8, 16))
    storage = write(tmp_path, f'{{"a": {first}, "b": {first}, "b": {second}}}')
    with pytest.raises(ConversionError, match="holds b twice"):
        read_header(storage, FILE)


def test_tensors_come_in_the_order_of_their_bytes(tmp_path: Path) -> None:
    table = {"c": entry(8, 16), "b": entry(0, 8), "a": entry(8, 8, [0])}
    assert list(read_header(write(tmp_path, table), FILE)) == ["b", "a", "c"]


def test_tables_may_lack_metadata_in_two_ways_and_have_spaces_around(tmp_path: Path) -> None:
    for texts in (
        {},
        {"__metadata__": None},
        {"__metadata__": {}},
        {"__metadata__": {"ö": "\N{GRINNING FACE}"}},
    ):
        assert list(read_header(write(tmp_path, {**texts, "a": entry(0, 16)}), FILE)) == ["a"]
    assert list(read_header(write(tmp_path, f" {json.dumps({'a': entry(0, 16)})}\n"), FILE)) == ["a"]
    (tmp_path / FILE).write_bytes(struct.pack("<Q", 4) + "{}".encode("utf-16-le"))
    with pytest.raises(ConversionError, match="cannot be read"):
        read_header(Folder(tmp_path), FILE)


def test_texts_of_the_header_are_read(tmp_path: Path) -> None:
    texts = {"title": "A model", "steps": 7, "notes": ["x"]}
    assert read_metadata(write(tmp_path, {"__metadata__": texts}, b""), FILE) == {"title": "A model"}
    for table in ({}, {"__metadata__": ["title"]}, "[]"):
        assert read_metadata(write(tmp_path, table), FILE) == {}
    with pytest.raises(ConversionError, match=r"cannot be read") as caught:
        read_metadata(write(tmp_path, "[" * 100_000), FILE)
    assert caught.value.code == "checkpoint.corrupt"


def test_a_pointer_of_git_lfs_is_no_damage(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(
        b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 3438167534\n"
    )
    with pytest.raises(ConversionError, match="of 3,438,167,534 bytes") as caught:
        read_header(Folder(tmp_path), FILE)
    assert caught.value.code == "checkpoint.lfs_pointer"
    assert f"{tmp_path.name}/{FILE}" in caught.value.message


def test_offsets_beyond_the_file_say_that_it_is_cut_short(tmp_path: Path) -> None:
    storage = write(tmp_path, {"a": entry(0, 1 << 40)})
    with pytest.raises(ConversionError, match="cut short") as caught:
        read_header(storage, FILE)
    assert caught.value.code == "checkpoint.truncated"


@pytest.mark.parametrize("content", [b"", b"1234567", b"\xff" * 8, b"\0" * 8 + b"rest", b"<html>404</html>"])
def test_files_that_are_no_safetensors_are_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(ConversionError) as caught:
        read_header(Folder(tmp_path), FILE)
    assert caught.value.code == "checkpoint.corrupt"


_PLACE = st.integers(0, 20)


@settings(deadline=None)
@given(
    st.dictionaries(
        st.sampled_from("abc"),
        st.tuples(_PLACE, _PLACE, st.sampled_from(["U8", "F16", "F32"])),
        max_size=3,
    )
)
def test_what_the_library_refuses_is_refused(
    tmp_path_factory: pytest.TempPathFactory, tensors: dict[str, tuple[int, int, str]]
) -> None:
    width = {"U8": 1, "F16": 2, "F32": 4}
    table = {
        name: entry(first, last, [max(0, last - first) // width[dtype]], dtype)
        for name, (first, last, dtype) in tensors.items()
    }
    folder = tmp_path_factory.mktemp("header")
    storage = write(folder, table)
    try:
        with safetensors.safe_open(folder / FILE, "np") as opened:
            expected = set(opened.keys())
    except safetensors.SafetensorError:
        with pytest.raises(ConversionError):
            read_header(storage, FILE)
    else:
        assert set(read_header(storage, FILE)) == expected

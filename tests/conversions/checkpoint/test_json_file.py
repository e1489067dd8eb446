"""One reader for all small files: what Windows' editors write is read, everything else is said clearly."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conversions.checkpoint.json_file import parse_object, read_object, read_object_file
from conversions.checkpoint.storage import Folder
from conversions.errors import ConversionError

TEXT = '{"name": "café 模型 😀", "sizes": [1, 2.5, null, true]}'


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_every_encoding_that_windows_writes_is_read(encoding: str) -> None:
    assert parse_object(TEXT.encode(encoding), "config.json") == json.loads(TEXT)


def test_two_byte_order_marks_are_no_harm() -> None:
    assert parse_object(b"\xef\xbb\xbf" + b"\xef\xbb\xbf{}", "config.json") == {}


BAD = {
    "empty": (b"", "is empty"),
    "zeros of a torn disk": (bytes(100), "is empty"),
    "cut": (b'{"a": 1', "is not valid JSON"),
    "a list": (b"[1]", "does not hold a JSON object"),
    "a number": (b"7", "does not hold a JSON object"),
    "latin-1": ('{"a": "é"}'.encode("latin-1"), "is not UTF-8 text"),
    "lone surrogate": (rb'{"_class_name": "Stable\ud83d"}', "lone surrogate"),
    "lone surrogate in a name": (rb'{"a": {"\uDC00": 1}}', "lone surrogate"),
    "surrogate bytes": (b'{"a": "\xed\xa0\x80"}', "is not UTF-8 text"),
    "nested": (b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
    "twice": (b'{"layers": 2, "layers": 3}', "'layers' comes twice"),
    "a number of 5000 digits": (b'{"a": ' + b"1" * 5000 + b"}", "is not valid JSON"),
    "html": (b"<html>404</html>", "is not valid JSON"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_configuration_is_named(case: str) -> None:
    content, reason = BAD[case]
    with pytest.raises(ConversionError, match=r"unet/config\.json") as caught:
        parse_object(content, "unet/config.json")
    assert caught.value.code == "checkpoint.corrupt"
    assert reason in caught.value.message
    assert caught.value.hint


def test_what_pythons_writer_writes_is_read() -> None:
    found = parse_object(b'{"lambda_min_clipped": -Infinity, "a": NaN, "b": "\\ud83d\\ude00"}', "x")
    assert found["lambda_min_clipped"] == -math.inf
    assert math.isnan(found["a"])
    assert found["b"] == "😀"


def test_a_name_that_comes_twice_with_one_value_is_no_harm() -> None:
    assert parse_object(b'{"a": [1], "a": [1]}', "x") == {"a": [1]}


@given(st.binary(max_size=200))
def test_any_bytes_give_an_object_or_one_error(content: bytes) -> None:
    try:
        assert isinstance(parse_object(content, "x"), dict)
    except ConversionError as error:
        assert error.message.startswith("x ")


def test_pointers_and_missing_files_are_told_apart(tmp_path: Path) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1059962\n"
    (tmp_path / "vocab.json").write_text(pointer, "utf-8")
    for read in (
        lambda: read_object_file(tmp_path / "vocab.json"),
        lambda: read_object(Folder(tmp_path), "vocab.json"),
    ):
        with pytest.raises(ConversionError, match="git-lfs pointer") as caught:
            read()
        assert "1,059,962 bytes" in caught.value.message
        assert "git lfs pull" in caught.value.hint
    with pytest.raises(ConversionError, match="cannot be read") as caught:
        read_object_file(tmp_path / "absent.json", hint="Convert again.")
    assert (caught.value.code, caught.value.hint) == ("checkpoint.unreadable", "Convert again.")


def test_a_file_of_gigabytes_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    with path.open("wb") as file:
        file.truncate(5 << 30)
    for read in (lambda: read_object(Folder(tmp_path), "config.json"), lambda: read_object_file(path)):
        with pytest.raises(ConversionError, match="has 5,368,709,120 bytes, too") as caught:
            read()
        assert caught.value.code == "checkpoint.corrupt"
        assert caught.value.hint == "Download or copy this file again."


def test_128_mib_are_the_most_that_is_read(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    for size, said in ((128 << 20, "is empty"), ((128 << 20) + 1, "too many for a configuration")):
        with path.open("wb") as file:
            file.truncate(size)
        with pytest.raises(ConversionError, match=said) as caught:
            read_object_file(path)
        assert str(path) in caught.value.message


def test_an_escaped_surrogate_that_is_whole_is_read_beside_other_letters() -> None:
    assert parse_object(b'{"a": "\\ud83d\\ude00", "b": "\xc3\xa9"}', "x") == {"a": "😀", "b": "é"}


def test_the_file_is_named_that_holds_no_object(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("[]", "utf-8")
    with pytest.raises(ConversionError) as caught:
        read_object_file(tmp_path / "config.json", hint="Convert again.")
    assert caught.value.message.startswith(f"{tmp_path / 'config.json'} ")
    assert caught.value.hint == "Convert again."

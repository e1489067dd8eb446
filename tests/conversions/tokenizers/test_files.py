"""A tokenizer's files: what is read of a folder, and what is said of those that cannot be used."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from conversions.checkpoint.storage import Folder
from conversions.errors import ConversionError
from conversions.tokenizers.files import TokenizerFiles, read_files, read_files_of

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12\n"


def files(**content: bytes) -> TokenizerFiles:
    named = {name.replace("__", "."): data for name, data in content.items()}
    return TokenizerFiles(label="here", names=frozenset(named), content=named)


@contextmanager
def refused(code: str = "tokenizer.broken") -> Iterator[pytest.ExceptionInfo[ConversionError]]:
    with pytest.raises(ConversionError) as caught:
        yield caught
    assert caught.value.code == code


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tokenizer = tmp_path / "tokenizer"
    (tokenizer / "deeper").mkdir(parents=True)
    for name, data in {"vocab.json": b'{"a": 1}', "merges.txt": b"a b\nc d", "notes.txt": b"no"}.items():
        (tokenizer / name).write_bytes(data)
    return tokenizer


def test_the_files_that_describe_a_tokenizer_are_read_and_the_others_named(folder: Path) -> None:
    found, of_storage = read_files(folder), read_files_of(Folder(folder.parent), "tokenizer")
    for each in (found, of_storage):
        assert dict(each.content) == {"vocab.json": b'{"a": 1}', "merges.txt": b"a b\nc d"}
        assert {"vocab.json", "merges.txt", "notes.txt"} <= each.names
        assert each.json("vocab.json") == {"a": 1}
        assert each.json("tokenizer.json") == each.config == {}
        assert each.lines("merges.txt") == ["a b", "c d"]
    assert found.label == str(folder)
    assert of_storage.label == f"{Folder(folder.parent).label}/tokenizer"


@pytest.mark.parametrize(
    "name",
    [
        *("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "tokenizer.json"),
        *("vocab.json", "merges.txt", "spiece.model", "tokenizer.model"),
    ],
)
def test_each_file_of_a_tokenizer_is_read(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"{}")
    assert dict(read_files(tmp_path).content) == {name: b"{}"}


def test_a_folder_that_is_missing_or_empty_is_named(tmp_path: Path) -> None:
    for missing in (tmp_path, tmp_path / "nothing"):
        with refused("tokenizer.missing") as caught:
            read_files(missing)
        assert caught.value.message.startswith(f"There is no tokenizer in {missing}:")
    with refused("tokenizer.missing") as caught:
        read_files_of(Folder(tmp_path), "tokenizer_2")
    assert "/tokenizer_2:" in caught.value.message


def test_json_that_cannot_be_read_is_named() -> None:
    with pytest.raises(ConversionError, match=r"here/vocab\.json"):
        files(vocab__json=b"{").json("vocab.json")
    assert files(tokenizer_config__json=b'{"a": 2}').config == {"a": 2}


def test_lines_are_utf_8_with_or_without_a_mark() -> None:
    assert files(merges__txt=b"\xef\xbb\xbfa\n\xc3\xa9").lines("merges.txt") == ["a", "é"]
    with refused() as caught:
        files(merges__txt=b"\xff").lines("merges.txt")
    assert "here/merges.txt is not UTF-8 text." in caught.value.message
    with refused() as caught:
        files().lines("merges.txt")
    assert caught.value.message == ("The tokenizer in here cannot be used: here/merges.txt is missing.")


def test_pointers_of_git_lfs_are_told_from_files() -> None:
    for read in (
        lambda: files(merges__txt=POINTER).lines("merges.txt"),
        lambda: files(spiece__model=POINTER).sentencepiece("spiece.model"),
    ):
        with pytest.raises(ConversionError, match=r"here/(merges\.txt|spiece\.model)") as caught:
            read()
        assert caught.value.code != "tokenizer.broken"


def test_a_damaged_sentencepiece_file_is_named() -> None:
    with refused() as caught:
        files(spiece__model=b"\xff\xff").sentencepiece("spiece.model")
    assert "here cannot be used: spiece.model is damaged: " in caught.value.message


@pytest.mark.parametrize(
    ("given", "length"),
    [(77, 77), (2, 2), (100, 77), (1e30, 77), (math.inf, 77), (10**40, 77), (5.0, 5)],
)
def test_a_length_is_at_most_what_the_model_has_places_for(given: Any, length: int) -> None:
    found = files().length(given, least=2, most=77)
    assert (found, type(found)) == (length, int)


@pytest.mark.parametrize("given", [1, 0, -3, math.nan, True, "77", None, [77]])
def test_what_is_no_length_is_refused(given: Any) -> None:
    with refused() as caught:
        files().length(given, least=2, most=77)
    assert f"its model_max_length is {given!r}." in caught.value.message


@pytest.mark.parametrize(
    ("content", "usual", "left"),
    [
        (b"{}", "left", True),
        (b"{}", "right", False),
        (b'{"padding_side": "left"}', "right", True),
        (b'{"padding_side": "right"}', "left", False),
    ],
)
def test_the_side_of_padding(content: bytes, usual: str, left: bool) -> None:
    assert files(tokenizer_config__json=content).pads_left(usual) is left


def test_another_side_is_refused() -> None:
    with refused() as caught:
        files(tokenizer_config__json=b'{"padding_side": "top"}').pads_left("left")
    assert "its padding_side is 'top'." in caught.value.message

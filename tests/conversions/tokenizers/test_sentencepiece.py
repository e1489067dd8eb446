"""Protocol buffers as sentencepiece writes them, written here byte by byte."""

from __future__ import annotations

import struct

import pytest

from conversions.tokenizers.sentencepiece import SentencePieceModel, read_sentencepiece


def varint(number: int) -> bytes:
    written = b""
    while number >= 0x80:
        written += bytes([number & 0x7F | 0x80])
        number >>= 7
    return written + bytes([number])


def field(number: int, value: int | bytes | float) -> bytes:
    """A field: a whole number, bytes with their length before them, or a float of four bytes."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    if isinstance(value, float):
        return varint(number << 3 | 5) + struct.pack("<f", value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def piece(text: str, score: float, kind: int | None = None) -> bytes:
    content = field(1, text.encode()) + field(2, score)
    return field(1, content + (field(3, kind) if kind is not None else b""))


def trainer(model_type: int) -> bytes:
    return field(2, field(1, b"input.txt") + field(3, model_type))


def normalizer(*fields: bytes) -> bytes:
    return field(3, b"".join(fields))


def test_pieces_have_their_scores_and_some_are_found_whole() -> None:
    content = (
        piece("<pad>", 0.0, 3) + piece("a", -1.5) + piece("é", -2.25, 1) + piece("<toy>", 0.0, 4)
        + piece("<unk>", 0.0, 2)
    )  # fmt: skip
    assert read_sentencepiece(content) == SentencePieceModel(
        pieces=(("<pad>", 0.0), ("a", -1.5), ("é", -2.25), ("<toy>", 0.0), ("<unk>", 0.0)),
        characters=b"",
        whole=(("<pad>", True), ("<toy>", False)),
        is_unigram=True,
        is_byte_pairs=False,
    )
    assert read_sentencepiece(b"").pieces == ()


@pytest.mark.parametrize(
    ("number", "unigram", "pairs"), [(1, True, False), (2, False, True), (3, False, False)]
)
def test_the_kind_of_model_is_the_trainer_s(number: int, unigram: bool, pairs: bool) -> None:
    found = read_sentencepiece(piece("a", 0.0) + trainer(number))
    assert (found.is_unigram, found.is_byte_pairs) == (unigram, pairs)
    without = read_sentencepiece(field(2, field(1, b"input.txt")))
    assert (without.is_unigram, without.is_byte_pairs) == (True, False)


def test_the_map_of_characters_is_the_normalizer_s() -> None:
    named = field(1, b"nmt_nfkc")
    assert read_sentencepiece(normalizer(named, field(2, b"\x01\x02map"))).characters == b"\x01\x02map"
    assert read_sentencepiece(normalizer(named)).characters == b""
    assert read_sentencepiece(normalizer(named, field(2, 7))).characters == b""


@pytest.mark.parametrize("length", [0, 1, 127, 128, 129, 255, 256, 16_383, 16_384, 40_000])
def test_lengths_of_any_size_are_read(length: int) -> None:
    text = "a" * length
    found = read_sentencepiece(piece(text, 1.0) + piece("b", 2.0))
    assert found.pieces == ((text, 1.0), ("b", 2.0))


def test_what_is_not_needed_is_passed_over() -> None:
    other = field(9, 128) + field(10, b"bytes") + field(11, 0.5) + varint(12 << 3 | 1) + bytes(8)
    inside = field(1, field(7, 300) + field(1, b"a") + field(8, b"x") + field(2, 0.5))
    assert read_sentencepiece(other + inside + other).pieces == (("a", 0.5),)
    assert read_sentencepiece(field(1, 5) + field(2, 5) + field(3, 5)).pieces == ()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (piece("a", 1.0)[:-1], "cannot be read"),
        (b"\x0a", "has no end"),
        (b"\x80" * 11, "has no end"),
        (varint(1 << 3 | 3), "cannot be read"),
        (varint(4 << 3 | 1) + bytes(7), "cannot be read"),
        (varint(4 << 3 | 5) + bytes(3), "cannot be read"),
        (field(1, field(1, b"a") + field(2, b"12345")), "a score is not four bytes long"),
        (field(1, field(1, b"\xff")), "decode"),
    ],
)
def test_a_damaged_file_is_an_error(content: bytes, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        read_sentencepiece(content)

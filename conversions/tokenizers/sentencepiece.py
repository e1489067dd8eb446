"""sentencepiece's model files, read without the library.

They are protocol buffers; the few fields that unigram and byte-pair tokenizers need are read here. Source:
``src/sentencepiece_model.proto`` of google/sentencepiece; the encoding is that of
protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

_FLOAT_BYTES = 4
# Numbers of fields in ModelProto, SentencePiece, TrainerSpec and NormalizerSpec.
_PIECE, _TRAINER, _NORMALIZER = 1, 2, 3
_TEXT, _SCORE, _KIND = 1, 2, 3
_MODEL_TYPE = 3
_CHARACTERS = 2
_UNIGRAM, _BYTE_PAIRS = 1, 2
# Kinds of pieces: tokens that stand for no text, and texts that are never split.
_CONTROL, _DEFINED = 3, 4
# How many bits of a field's key say how its value is written.
_WIRE_BITS = 3
_VARINT, _EIGHT_BYTES, _LENGTH_PREFIXED, _FOUR_BYTES = 0, 1, 2, 5
_LONGEST_VARINT = 10


@dataclass(frozen=True, kw_only=True)
class SentencePieceModel:
    """What a sentencepiece file says.

    Attributes:
        pieces: Each piece with its score; a piece's place is its id.
        characters: The compiled map of characters that texts are normalised with; empty for none.
        whole: The pieces that are found before a text is split, each with whether it is a special token.
        is_unigram: Whether the scores are those of a unigram model.
        is_byte_pairs: Whether the model merges pairs.
    """

    pieces: tuple[tuple[str, float], ...]
    characters: bytes
    whole: tuple[tuple[str, bool], ...]
    is_unigram: bool
    is_byte_pairs: bool


def read_sentencepiece(content: bytes) -> SentencePieceModel:
    """Read a sentencepiece file.

    Args:
        content: The whole of ``spiece.model`` or ``tokenizer.model``.

    Raises:
        ValueError: It is no such file, or is damaged.
    """
    pieces: list[tuple[str, float]] = []
    whole: list[tuple[str, bool]] = []
    characters, model_type = b"", _UNIGRAM
    for number, value in _fields(content):
        if not isinstance(value, bytes):
            continue
        if number == _PIECE:
            text, score, kind = _piece(value)
            pieces.append((text, score))
            if kind in (_CONTROL, _DEFINED):
                whole.append((text, kind == _CONTROL))
        elif number == _TRAINER:
            model_type = next((int(each) for key, each in _fields(value) if key == _MODEL_TYPE), _UNIGRAM)
        elif number == _NORMALIZER:
            found = next((each for key, each in _fields(value) if key == _CHARACTERS), b"")
            characters = found if isinstance(found, bytes) else b""
    return SentencePieceModel(
        pieces=tuple(pieces),
        characters=characters,
        whole=tuple(whole),
        is_unigram=model_type == _UNIGRAM,
        is_byte_pairs=model_type == _BYTE_PAIRS,
    )


def _piece(content: bytes) -> tuple[str, float, int]:
    text, score, kind = "", 0.0, 0
    for number, value in _fields(content):
        if number == _KIND and isinstance(value, int):
            kind = value
        if number == _TEXT and isinstance(value, bytes):
            text = value.decode("utf-8")
        elif number == _SCORE and isinstance(value, bytes):
            if len(value) != _FLOAT_BYTES:
                raise ValueError("a score is not four bytes long")
            (score,) = struct.unpack("<f", value)
    return text, score, kind


def _fields(content: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Give a message's fields: a number, or the bytes of anything else.

    Raises:
        ValueError: The bytes end within a field, or a field is written in a way that there is not.
    """
    at = 0
    while at < len(content):
        key, at = _varint(content, at)
        wire = key & (2**_WIRE_BITS - 1)
        if wire == _VARINT:
            number, at = _varint(content, at)
            yield key >> _WIRE_BITS, number
            continue
        length = {_EIGHT_BYTES: 8, _FOUR_BYTES: 4}.get(wire)
        if wire == _LENGTH_PREFIXED:
            length, at = _varint(content, at)
        if length is None or at + length > len(content):
            raise ValueError(f"a field at byte {at} cannot be read")
        yield key >> _WIRE_BITS, content[at : at + length]
        at += length


def _varint(content: bytes, at: int) -> tuple[int, int]:
    """Return the number that begins at a byte, and the place behind it."""
    number = 0
    for place, byte in enumerate(content[at : at + _LONGEST_VARINT]):
        number |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            return number, at + place + 1
    raise ValueError(f"a number at byte {at} has no end")

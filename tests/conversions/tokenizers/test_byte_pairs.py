"""What byte-pair tokenizers share: vocabularies and merges from files, added tokens, several vectors."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from conversions.errors import ConversionError
from conversions.tokenizers.byte_pairs import BytePairTokenizer, read_vocabulary, size_of
from conversions.tokenizers.files import TokenizerFiles

VOCABULARY = {"a": 0, "b": 1, "c": 2, "ab": 5}
MERGES = [("a", "b")]


def files(**content: Any) -> TokenizerFiles:
    """Return files from what JSON they hold; text as it is."""
    named = {
        name.replace("__", "."): (value if isinstance(value, str) else json.dumps(value)).encode()
        for name, value in content.items()
    }
    return TokenizerFiles(label="here", names=frozenset(named), content=named)


def whole(**model: Any) -> TokenizerFiles:
    return files(tokenizer__json={"model": {"vocab": VOCABULARY, "merges": ["a b"], **model}})


@pytest.mark.parametrize(
    "given",
    [
        files(vocab__json=VOCABULARY, merges__txt="#version: 0.2\na b\n"),
        files(vocab__json=VOCABULARY, merges__txt="a b"),
        files(vocab__json=VOCABULARY, merges__txt="#version: 0.2\r\na b\r\n\r\n  \n"),
        files(vocab__json=VOCABULARY, merges__txt="#version: 0.2\n\na b\n#version\n"),
        whole(),
        whole(type="BPE"),
        whole(merges=[["a", "b"]]),
        files(
            tokenizer__json={"model": {"vocab": VOCABULARY, "merges": ["a b"]}},
            vocab__json={"x": 0},
            merges__txt="x x",
        ),
    ],
)
def test_vocabulary_and_merges_are_read_from_either_form(given: TokenizerFiles) -> None:
    assert read_vocabulary(given) == (VOCABULARY, MERGES)


def test_merges_keep_their_order() -> None:
    given = files(vocab__json=VOCABULARY, merges__txt="b c\na b\n# c\n")
    assert read_vocabulary(given)[1] == [("b", "c"), ("a", "b"), ("#", "c")]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (files(merges__txt="a b"), "vocab.json is missing"),
        (files(vocab__json={}, merges__txt="a b"), "vocab.json holds no vocabulary"),
        (files(vocab__json={"a": -1}, merges__txt="a b"), "vocab.json holds no vocabulary"),
        (files(vocab__json={"a": True}, merges__txt="a b"), "vocab.json holds no vocabulary"),
        (files(vocab__json={"a": 0, "b": 1 << 32}, merges__txt="a b"), "vocab.json holds no vocabulary"),
        (files(vocab__json=VOCABULARY), "here/merges.txt is missing"),
        (files(vocab__json=VOCABULARY, merges__txt="#version\n\n"), "it has no merges"),
        (files(vocab__json=VOCABULARY, merges__txt="a b\na"), "'a' among its merges is no pair"),
        (files(vocab__json=VOCABULARY, merges__txt="a b c"), "'a b c' among its merges is no pair"),
        (
            whole(type="WordPiece"),
            "tokenizer.json holds a model of the type 'WordPiece', where BPE is wanted",
        ),
        (files(tokenizer__json={}), "holds a model of the type None, where BPE is wanted"),
        (files(tokenizer__json={"model": 3}), "holds a model of the type None, where BPE is wanted"),
        (whole(vocab=None), "tokenizer.json holds no vocabulary"),
        (whole(vocab=["a"]), "tokenizer.json holds no vocabulary"),
        (whole(merges=None), "it has no merges"),
        (whole(merges="a b"), "it has no merges"),
        (whole(merges=[["a", "b", "c"]]), "['a', 'b', 'c'] among its merges is no pair"),
        (whole(merges=[["a", 3]]), "['a', 3] among its merges is no pair"),
        (whole(merges=[3]), "3 among its merges is no pair"),
    ],
)
def test_what_cannot_be_used_is_named(given: TokenizerFiles, said: str) -> None:
    with pytest.raises(ConversionError) as caught:
        read_vocabulary(given)
    assert caught.value.code == "tokenizer.broken"
    assert f"{said}." in caught.value.message


def test_ids_may_be_as_high_as_32_bits() -> None:
    top = {"a": 0, "b": (1 << 32) - 1}
    assert read_vocabulary(files(vocab__json=top, merges__txt="a b"))[0] == top


def made(vocabulary: dict[str, int]) -> BytePairTokenizer:
    backend = Tokenizer(models.BPE(vocabulary, MERGES))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.add_special_tokens(["<end>"])
    return BytePairTokenizer(
        class_name="X",
        length=8,
        size=size_of(backend),
        prefix=(0,),
        suffix=(1,),
        padding=2,
        added_tokens=(),
        backend=backend,
    )


@pytest.fixture
def tokenizer() -> BytePairTokenizer:
    return made({"a": 0, "b": 1, "c": 2, "d": 3, "e": 4, "ab": 5})


def test_a_text_has_the_ids_of_its_pieces_alone(tokenizer: BytePairTokenizer) -> None:
    assert tokenizer.encode("abc AB a") == (5, 2, 5, 0)
    assert tokenizer.encode("") == ()
    assert tokenizer.size == size_of(tokenizer.backend) == 7  # <end> has the id after the highest
    assert tokenizer.pads_left is False


def test_added_tokens_get_the_next_ids_and_leave_the_first_tokenizer_alone(
    tokenizer: BytePairTokenizer,
) -> None:
    more = tokenizer.with_tokens(["<cat>", "<cat>_1"])
    assert (more.size, more.added_tokens) == (9, ("<cat>", "<cat>_1"))
    assert more.encode("a <cat> <CAT>_1 b") == (0, 7, 8, 1)
    again = more.with_tokens(["<dog>"])
    assert (again.size, again.added_tokens) == (10, ("<cat>", "<cat>_1", "<dog>"))
    assert again.encode("<dog>") == (9,)
    assert 7 not in tokenizer.encode("<cat>")
    assert (tokenizer.size, tokenizer.added_tokens) == (7, ())
    assert (more.prefix, more.suffix, more.padding, more.length) == ((0,), (1,), 2, 8)


@pytest.mark.parametrize("token", ["ab", "<end>", "", "  "])
def test_a_token_that_is_known_or_nothing_is_refused(tokenizer: BytePairTokenizer, token: str) -> None:
    with pytest.raises(ConversionError) as caught:
        tokenizer.with_tokens(["<cat>", token])
    assert caught.value.code == "embedding.token"
    assert f"The token {token!r} cannot be added" in caught.value.message


def test_whether_special_tokens_are_text_is_kept(tokenizer: BytePairTokenizer) -> None:
    assert tokenizer.with_tokens(["<cat>"]).encode("<end>") == (6,)
    tokenizer.backend.encode_special_tokens = True
    assert 6 not in tokenizer.with_tokens(["<cat>"]).encode("<end>")


def test_a_token_of_several_vectors_is_written_out(tokenizer: BytePairTokenizer) -> None:
    more = tokenizer.with_tokens(["<cat>", "<cat>_1", "<cat>_2", "<dog>"])
    assert more.expand("a <cat> b") == "a <cat> <cat>_1 <cat>_2 b"
    assert more.expand("a <dog> b") == "a <dog> b"
    assert more.expand("<cat> a <cat>") == "<cat> <cat>_1 <cat>_2 a <cat> <cat>_1 <cat>_2"
    two = tokenizer.with_tokens(["<cat>", "<cat>_1"])
    assert two.expand("a <cat> b") == "a <cat> <cat>_1 b"
    assert tokenizer.expand("a <cat> b") == "a <cat> b"
    assert tokenizer.with_tokens(["<dog>"]).expand("<dog> a") == "<dog> a"


def test_a_vocabulary_with_a_gap_takes_no_further_tokens() -> None:
    """The library counts pieces for the next id, which another piece has then."""
    with pytest.raises(ConversionError) as caught:
        made(VOCABULARY).with_tokens(["<cat>"])
    assert caught.value.code == "embedding.token"
    assert "'<cat>' cannot be added: the ids of the tokenizer's vocabulary have a gap" in caught.value.message

"""T5's tokens are those of transformers, whichever files speak of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conversions.errors import ConversionError
from conversions.tokenizers import open_tokenizer
from conversions.tokenizers.compare import compare_tokenizers
from tests.conversions.tokenizers import t5_vocabulary
from tests.conversions.tokenizers.odd_prompts import odd_prompts

TOKEN = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}

SPECIAL = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}


def plain(folder: Path) -> None:
    t5_vocabulary.write(folder)


def without_map(folder: Path) -> None:
    t5_vocabulary.write(folder, characters=False)


def fast(folder: Path) -> None:
    t5_vocabulary.write(folder, tokenizer_class="T5TokenizerFast", model_max_length=10**30)


def listed(folder: Path) -> None:
    """As transformers 4 wrote it."""
    count = t5_vocabulary.write(folder)
    ids = {0: "<pad>", 1: "</s>", 2: "<unk>"}
    ids |= {count - 1 - number: token for number, token in enumerate(t5_vocabulary.SENTINELS)}
    t5_vocabulary.write(
        folder,
        added_tokens_decoder={str(number): {**TOKEN, "content": token} for number, token in ids.items()},
        additional_special_tokens=t5_vocabulary.SENTINELS,
        legacy=True,
        **SPECIAL,
    )


def in_a_sequence(folder: Path) -> None:
    """As converters of older versions wrote the normalizer, with steps that transformers 5 leaves out."""
    t5_vocabulary.write(folder)
    path = folder / "tokenizer.json"
    document = json.loads(path.read_text("utf-8"))
    steps = [document["normalizer"], {"type": "Strip", "strip_left": False, "strip_right": True}]
    document["normalizer"] = {"type": "Sequence", "normalizers": steps}
    path.write_text(json.dumps(document), "utf-8")


def special_as_text(folder: Path) -> None:
    t5_vocabulary.write(folder, split_special_tokens=True)


def slow(folder: Path) -> None:
    """As transformers 4 saved a slow tokenizer: no tokenizer.json."""
    count = t5_vocabulary.write_sentencepiece(folder)
    ids = {0: "<pad>", 1: "</s>", 2: "<unk>"}
    ids |= {count - 1 - number: token for number, token in enumerate(t5_vocabulary.SENTINELS)}
    t5_vocabulary.write_sentencepiece(
        folder,
        added_tokens_decoder={str(number): {**TOKEN, "content": token} for number, token in ids.items()},
        additional_special_tokens=t5_vocabulary.SENTINELS,
        legacy=True,
        **SPECIAL,
    )


def slow_of_2022(folder: Path) -> None:
    t5_vocabulary.write_sentencepiece(folder, characters=False)
    (folder / "special_tokens_map.json").write_text(json.dumps(SPECIAL), "utf-8")


@pytest.mark.torch
@pytest.mark.parametrize(
    "make", [slow, slow_of_2022, plain, without_map, fast, listed, in_a_sequence, special_as_text]
)
def test_the_tokens_are_those_of_transformers(make: Callable[[Path], None], tmp_path: Path) -> None:
    make(tmp_path)
    own = ["ﬁne ½ \u3000 e\u0301 ①", "<extra_id_7> x<extra_id_99>y", "a</s>b <pad>", "▁▁ a ▁b"]
    assert compare_tokenizers(tmp_path, [*odd_prompts(), *own]) == []


def test_a_row_is_words_end_and_padding(tmp_path: Path) -> None:
    count = t5_vocabulary.write(tmp_path)
    tokenizer = open_tokenizer(tmp_path)
    assert (tokenizer.prefix, tokenizer.suffix, tokenizer.padding, tokenizer.size) == ((), (1,), 0, count)
    assert tokenizer.class_name == "T5Tokenizer"
    assert tokenizer.length == 512


def change(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "tokenizer.json"
    document = json.loads(path.read_text("utf-8"))
    change(document)
    path.write_text(json.dumps(document), "utf-8")


def torn(folder: Path) -> None:
    """Leave a spiece.model whose one piece is longer than the file."""
    (folder / "tokenizer.json").unlink()
    (folder / "spiece.model").write_bytes(b"\x0a\x20\x0a\x05<pad>")


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "no vocabulary": (
        lambda folder: (folder / "tokenizer.json").unlink(),
        "tokenizer.json and spiece.model are missing",
    ),
    "a spiece.model that is none": (
        lambda folder: (folder / "tokenizer.json").rename(folder / "spiece.model"),
        "spiece.model is damaged",
    ),
    "a spiece.model that ends early": (
        torn,
        "spiece.model is damaged",
    ),
    "a spiece.model whose score is cut": (
        lambda folder: (
            (folder / "tokenizer.json").unlink(),
            (folder / "spiece.model").write_bytes(b"\x0a\x08\x0a\x01a\x12\x03abc"),
        ),
        "spiece.model is damaged",
    ),
    "an empty spiece.model": (
        lambda folder: ((folder / "tokenizer.json").unlink(), (folder / "spiece.model").write_bytes(b"")),
        "spiece.model holds no vocabulary",
    ),
    "byte pairs in spiece.model": (
        lambda folder: (
            (folder / "tokenizer.json").unlink(),
            # Field 2, the trainer's; in it field 3, the kind of model: byte pairs.
            (folder / "spiece.model").write_bytes(b"\x12\x02\x18\x02"),
        ),
        "no unigram model",
    ),
    "another model": (
        lambda folder: change(folder, lambda each: each["model"].update(type="BPE")),
        "'BPE', T5's is Unigram",
    ),
    "no model": (
        lambda folder: change(folder, lambda each: each.update(model="Unigram")),
        "a model of the type None",
    ),
    "a number of pieces": (
        lambda folder: change(folder, lambda each: each["model"].update(vocab=7)),
        "no vocabulary",
    ),
    "no pieces": (
        lambda folder: change(folder, lambda each: each["model"].update(vocab=[])),
        "no vocabulary",
    ),
    "a piece without score": (
        lambda folder: change(folder, lambda each: each["model"].update(vocab=[["a"]] * 9)),
        "['a']",
    ),
    "a damaged map": (
        lambda folder: change(folder, lambda each: each["normalizer"].update(precompiled_charsmap="=?")),
        "map of characters",
    ),
    "a map that is none": (
        lambda folder: change(folder, lambda each: each["normalizer"].update(precompiled_charsmap="AAAA")),
        "cannot be used",
    ),
    "no end": (
        lambda folder: t5_vocabulary.write(folder, eos_token={"content": 3}),
        "describes a token",
    ),
    "a length of words": (lambda folder: t5_vocabulary.write(folder, model_max_length="long"), "'long'"),
    "sentinels without number": (lambda folder: t5_vocabulary.write(folder, extra_ids="many"), "'many'"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_cannot_be_used_is_refused_by_its_reason(case: str, tmp_path: Path) -> None:
    t5_vocabulary.write(tmp_path)
    make, said = BROKEN[case]
    make(tmp_path)
    with pytest.raises(ConversionError) as caught:
        open_tokenizer(tmp_path)
    assert caught.value.code == "tokenizer.broken"
    assert said in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize(("given", "length"), [(2, 2), (300, 300), (512, 512), (513, 512), (10**30, 512)])
def test_a_text_is_as_long_as_the_configuration_says_and_512_at_most(
    given: int, length: int, tmp_path: Path
) -> None:
    t5_vocabulary.write(tmp_path, model_max_length=given)
    assert open_tokenizer(tmp_path).length == length


@pytest.mark.parametrize("given", [1, 0, -5, True])
def test_a_length_without_room_for_a_word_is_refused(given: int, tmp_path: Path) -> None:
    t5_vocabulary.write(tmp_path, model_max_length=given)
    with pytest.raises(ConversionError, match="model_max_length"):
        open_tokenizer(tmp_path)


def rewrite(folder: Path, leave_out: str = "", **config: Any) -> None:
    """Change the configuration alone."""
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text("utf-8")) | config
    settings.pop(leave_out, None)
    path.write_text(json.dumps(settings), "utf-8")


@pytest.mark.torch
def test_as_many_sentinels_as_the_configuration_says_follow_the_vocabulary(tmp_path: Path) -> None:
    words = t5_vocabulary.write_sentencepiece(tmp_path) - len(t5_vocabulary.SENTINELS)
    for count in (0, 1, 7, 10_000):
        rewrite(tmp_path, extra_ids=count)
        tokenizer = open_tokenizer(tmp_path)
        assert tokenizer.size == words + count
        if count:
            assert tokenizer.encode(f"<extra_id_{count - 1}>") == (words,)
            assert tokenizer.encode("<extra_id_0>") == (words + count - 1,)
    rewrite(tmp_path, leave_out="extra_ids")
    assert open_tokenizer(tmp_path).size == words + 100


@pytest.mark.parametrize("count", [-1, 10_001, True, 2.5, None])
def test_a_number_of_sentinels_that_is_none_is_refused(count: object, tmp_path: Path) -> None:
    t5_vocabulary.write(tmp_path, extra_ids=count)
    with pytest.raises(ConversionError, match="extra_ids is"):
        open_tokenizer(tmp_path)


def test_what_the_configuration_leaves_out_is_t5s_own(tmp_path: Path) -> None:
    count = t5_vocabulary.write(tmp_path)
    rewrite(tmp_path, leave_out="model_max_length")
    tokenizer = open_tokenizer(tmp_path)
    assert (tokenizer.length, tokenizer.size) == (512, count)
    assert tokenizer.pads_left is False
    assert tokenizer.added_tokens == ()
    assert tokenizer.expand("a <cat> b") == "a <cat> b"
    with pytest.raises(ConversionError, match="'<cat>' cannot be added") as caught:
        tokenizer.with_tokens(["<cat>"])
    assert caught.value.code == "embedding.token"


def test_end_and_padding_are_the_tokens_that_have_the_role(tmp_path: Path) -> None:
    roles = {"eos_token": "<extra_id_0>", "pad_token": "<extra_id_1>"}
    count = t5_vocabulary.write(tmp_path, **roles)
    tokenizer = open_tokenizer(tmp_path)
    assert (tokenizer.suffix, tokenizer.padding) == ((count - 1,), count - 2)


def test_special_tokens_are_plain_text_where_the_configuration_says_so(tmp_path: Path) -> None:
    t5_vocabulary.write(tmp_path)
    usual = open_tokenizer(tmp_path).encode("a</s>b")
    for value, splits in ((True, True), (False, False), ("yes", False)):
        rewrite(tmp_path, split_special_tokens=value)
        assert (open_tokenizer(tmp_path).encode("a</s>b") != usual) is splits


def test_the_map_of_characters_is_found_among_normalizers_of_any_kind(tmp_path: Path) -> None:
    t5_vocabulary.write(tmp_path)
    mapped = open_tokenizer(tmp_path).encode("\N{LATIN SMALL LIGATURE FI}")
    path = tmp_path / "tokenizer.json"
    document = json.loads(path.read_text("utf-8"))
    found = document["normalizer"]
    for normalizer, kept in (
        ({"type": "Sequence", "normalizers": [None, "x", {"type": "NFC"}, found]}, True),
        ({"type": "Sequence", "normalizers": []}, False),
        ({**found, "type": "Replace"}, False),
        ({"type": "Precompiled", "precompiled_charsmap": None}, False),
        ("nothing", False),
        (None, False),
    ):
        document["normalizer"] = normalizer
        path.write_text(json.dumps(document), "utf-8")
        assert (open_tokenizer(tmp_path).encode("\N{LATIN SMALL LIGATURE FI}") == mapped) is kept

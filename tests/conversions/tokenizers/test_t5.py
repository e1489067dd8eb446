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
@pytest.mark.parametrize("make", [slow, slow_of_2022, plain, without_map, fast, listed, in_a_sequence])
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

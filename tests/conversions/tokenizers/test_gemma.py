"""Gemma's tokens are those of transformers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conversions.errors import ConversionError
from conversions.tokenizers import open_tokenizer
from sdsetup.imaging import prompts
from sdsetup.imaging.tokenizer import PromptTokenizer
from tests.conversions.tokenizers.odd_prompts import odd_prompts
from tests.gemma_vocabulary import template, write, write_sentencepiece

LENGTH = 64
MADE: dict[str, Callable[[Path], object]] = {
    "as published": write,
    "the older class name": lambda folder: write(folder, tokenizer_class="GemmaTokenizerFast"),
    "padding on the left": lambda folder: write(folder, padding_side="left"),
    "the class's own side": lambda folder: write(folder, padding_side=None),
    "an end too": lambda folder: write(folder, post_processor=template(last=True)),
    "neither start nor end": lambda folder: write(folder, post_processor=template(first=False)),
    "a configuration that says otherwise": lambda folder: write(
        folder, add_bos_token=False, add_eos_token=True
    ),
    "sentencepiece's file": write_sentencepiece,
    "sentencepiece's file with an end": lambda folder: write_sentencepiece(folder, add_eos_token=True),
    "sentencepiece's file with neither": lambda folder: write_sentencepiece(folder, add_bos_token=None),
    "special tokens as text": lambda folder: write(folder, split_special_tokens=True),
}


@pytest.mark.torch
@pytest.mark.parametrize("made", MADE)
def test_tokens_are_those_of_transformers(made: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import GemmaTokenizer, convert_slow_tokenizer

    # It asks for sentencepiece before it reads the file, and reads it with protobuf alone.
    monkeypatch.setattr(convert_slow_tokenizer, "requires_backends", lambda *_: None)
    MADE[made](tmp_path)
    reference = GemmaTokenizer.from_pretrained(tmp_path, local_files_only=True)
    tokenizer = PromptTokenizer(folder=tmp_path, length=LENGTH)
    for text in odd_prompts():
        expected = reference(text, padding="max_length", max_length=LENGTH, truncation=True)
        found = prompts.tokenize(text, tokenizer, length=LENGTH)
        assert found.ids[0].tolist() == expected.input_ids, text
        assert found.mask[0].tolist() == expected.attention_mask, text


def test_a_token_without_which_no_text_is_filled_up_is_missed(tmp_path: Path) -> None:
    write(tmp_path)
    path = tmp_path / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | {"pad_token": None, "unk_token": None}))
    with pytest.raises(ConversionError, match="it has no pad_token") as caught:
        open_tokenizer(tmp_path)
    assert caught.value.code == "tokenizer.broken"


def test_a_pair_of_line_ends_is_read_as_it_is_written(tmp_path: Path) -> None:
    write(tmp_path)
    path = tmp_path / "tokenizer.json"
    document = json.loads(path.read_text("utf-8"))
    model = document["model"]
    for piece in ("\r", "\r\r"):
        model["vocab"][piece] = len(model["vocab"])
    model["merges"].append("\r \r")
    path.write_text(json.dumps(document), encoding="utf-8")
    assert open_tokenizer(tmp_path).encode("\r\r") == (model["vocab"]["\r\r"],)


TEXT = {"Sequence": {"id": "A", "type_id": 0}}


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"padding_side": "both"}, "padding_side"),
        ({"model_max_length": "long"}, "model_max_length"),
        ({"post_processor": {"type": "BertProcessing"}}, "BertProcessing"),
        ({"post_processor": "junk"}, "post_processor of the type 'junk'"),
        ({"post_processor": [5]}, r"post_processor of the type \[5\]"),
        ({"post_processor": template() | {"single": [{"SpecialToken": {"id": "<x>"}}, TEXT]}}, "<x>"),
        ({"post_processor": template() | {"single": [{"SpecialToken": "<bos>"}, TEXT]}}, "<bos>"),
        ({"post_processor": template() | {"single": [{"SpecialToken": {"id": "<bos>"}}]}}, "made of"),
        ({"post_processor": template() | {"single": [TEXT, "junk"]}}, "made of"),
    ],
)
def test_what_cannot_be_used_is_named(change: dict[str, Any], what: str, tmp_path: Path) -> None:
    write(tmp_path, **change)
    with pytest.raises(ConversionError, match=what) as caught:
        open_tokenizer(tmp_path)
    assert caught.value.code == "tokenizer.broken"


@pytest.mark.torch  # transformers comes with it, and its SentencePiece format
def test_files_that_hold_no_vocabulary_are_named(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    for content, what in (
        (None, r"tokenizer\.model are missing"),
        (b"\x0a\xff", "damaged"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "LFS|lfs"),
    ):
        if content is not None:
            (tmp_path / "tokenizer.model").write_bytes(content)
        with pytest.raises(ConversionError, match=what):
            open_tokenizer(tmp_path)
    write_sentencepiece(tmp_path, kind="UNIGRAM")
    with pytest.raises(ConversionError, match="no model of byte pairs"):
        open_tokenizer(tmp_path)

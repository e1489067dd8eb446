"""Which tokenizers open, and how the others are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordPiece

from conversions.checkpoint.storage import Folder
from conversions.errors import ConversionError
from conversions.tokenizers import open_tokenizer, open_tokenizer_of, tokens_without_embedding
from tests.sdsetup.imaging import clip_vocabulary


def test_a_tokenizer_opens_from_any_storage(tmp_path: Path) -> None:
    clip_vocabulary.write(tmp_path / "tokenizer_2", config={"tokenizer_class": "CLIPTokenizerFast"})
    from_storage = open_tokenizer_of(Folder(tmp_path), "tokenizer_2")
    assert from_storage.class_name == "CLIPTokenizer"
    assert from_storage.encode("a cat") == open_tokenizer(tmp_path / "tokenizer_2").encode("a cat")


@pytest.mark.parametrize(("given", "length"), [(77, 77), (64, 64), (10**30, 77), (1e30, 77), (None, 77)])
def test_the_length_is_the_configurations_but_never_more_than_clips(
    given: Any, length: int, tmp_path: Path
) -> None:
    clip_vocabulary.write(tmp_path, config={"model_max_length": given})
    assert open_tokenizer(tmp_path).length == length


def test_added_tokens_that_the_text_encoder_does_not_know_are_named(tmp_path: Path) -> None:
    clip_vocabulary.write(tmp_path, config={})
    rows = len(json.loads((tmp_path / "vocab.json").read_text("utf-8")))
    (tmp_path / "added_tokens.json").write_text(json.dumps({"<cat>": rows, "<dog>": rows + 1}), "utf-8")
    tokenizer = open_tokenizer(tmp_path)
    assert tokens_without_embedding(tokenizer, rows + 2) == ()
    assert tokens_without_embedding(tokenizer, rows + 1) == ("<dog>",)
    assert tokens_without_embedding(tokenizer, rows) == ("<cat>", "<dog>")


def refusal(folder: Path) -> ConversionError:
    with pytest.raises(ConversionError) as caught:
        open_tokenizer(folder)
    assert str(folder) in caught.value.message
    assert caught.value.hint
    return caught.value


@pytest.mark.parametrize(
    "name", ["LlamaTokenizer", "BertTokenizer", "GPT2TokenizerFast", "PreTrainedTokenizer"]
)
def test_another_class_is_refused_by_its_name(name: str, tmp_path: Path) -> None:
    clip_vocabulary.write(tmp_path, config={"tokenizer_class": name})
    error = refusal(tmp_path)
    assert error.code == "tokenizer.unsupported"
    assert name in error.message
    assert "CLIPTokenizer" in error.hint


@pytest.mark.parametrize(
    ("file", "what"),
    [("spiece.model", "sentencepiece"), ("vocab.txt", "WordPiece"), ("readme.md", "do not name")],
)
def test_without_a_class_the_files_tell(file: str, what: str, tmp_path: Path) -> None:
    (tmp_path / file).write_bytes(b"\x0a\x0b")
    error = refusal(tmp_path)
    assert error.code == "tokenizer.unsupported"
    assert what in error.message


def test_a_whole_tokenizer_of_another_kind_is_refused(tmp_path: Path) -> None:
    Tokenizer(WordPiece({"[UNK]": 0, "a": 1}, unk_token="[UNK]")).save(str(tmp_path / "tokenizer.json"))  # noqa: S106
    assert "WordPiece" in refusal(tmp_path).message
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "CLIPTokenizer"}')
    error = refusal(tmp_path)
    assert error.code == "tokenizer.broken"
    assert "WordPiece" in error.message


@pytest.mark.parametrize("exists", [True, False])
def test_an_absent_tokenizer_is_one_message(exists: bool, tmp_path: Path) -> None:
    folder = tmp_path / "tokenizer"
    if exists:
        folder.mkdir()
    assert refusal(folder).code == "tokenizer.missing"


def drop(name: str) -> Any:
    return lambda folder: (folder / name).unlink()


def put(name: str, content: object) -> Any:
    return lambda folder: (folder / name).write_text(json.dumps(content), "utf-8")


BROKEN: dict[str, tuple[Any, str]] = {
    "no merges": (drop("merges.txt"), "merges.txt is missing"),
    "no vocabulary": (drop("vocab.json"), "vocab.json is missing"),
    "empty vocabulary": (put("vocab.json", {}), "vocab.json holds no vocabulary"),
    "strings as ids": (put("vocab.json", {"a": "1"}), "vocab.json holds no vocabulary"),
    "negative ids": (put("vocab.json", {"a": -1}), "vocab.json holds no vocabulary"),
    "merge of unknown pieces": (lambda folder: (folder / "merges.txt").write_text("zz zz\n"), "zz"),
    "no merge lines": (lambda folder: (folder / "merges.txt").write_text("#version: 0.2\n"), "has no merges"),
    "merges of latin-1": (lambda folder: (folder / "merges.txt").write_bytes(b"\xe9 b\n"), "not UTF-8"),
    "pad_token is a number": (
        put("tokenizer_config.json", {"pad_token": 7}),
        "describes its added tokens as 7",
    ),
    "length of a string": (
        put("tokenizer_config.json", {"model_max_length": "77"}),
        "model_max_length is '77'",
    ),
    "length of nothing": (put("tokenizer_config.json", {"model_max_length": 0}), "model_max_length is 0"),
    "class is a list": (put("tokenizer_config.json", {"tokenizer_class": [1]}), "tokenizer_class is [1]"),
    "added ids are words": (put("added_tokens.json", {"<cat>": "first"}), "has the id 'first'"),
    "added ids are negative": (put("added_tokens.json", {"<cat>": -3}), "has the id -3"),
    "added tokens are a list": (put("tokenizer_config.json", {"added_tokens_decoder": [1]}), "as [1]"),
    "an added token is a word": (
        put("tokenizer_config.json", {"added_tokens_decoder": {"5": "x"}}),
        "as 'x'",
    ),
    "a flag is a word": (
        put("tokenizer_config.json", {"added_tokens_decoder": {"5": {"content": "x", "lstrip": "y"}}}),
        "describes a token as",
    ),
    "special tokens are a number": (put("tokenizer_config.json", {"extra_special_tokens": 5}), "as 5"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_files_that_cannot_be_used_are_one_clear_message(case: str, tmp_path: Path) -> None:
    clip_vocabulary.write(tmp_path, config={})
    spoil, reason = BROKEN[case]
    spoil(tmp_path)
    error = refusal(tmp_path)
    assert error.code == "tokenizer.broken"
    assert reason in error.message


@pytest.mark.parametrize("name", ["vocab.json", "merges.txt", "tokenizer_config.json"])
def test_a_git_lfs_pointer_is_recognised(name: str, tmp_path: Path) -> None:
    clip_vocabulary.write(tmp_path, config={})
    (tmp_path / name).write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 7\n", "utf-8"
    )
    assert refusal(tmp_path).code == "checkpoint.lfs_pointer"


def test_a_whole_file_of_clip_s_needs_no_class(tmp_path: Path) -> None:
    clip_vocabulary.write(tmp_path, whole=True, config={})
    for name in ("vocab.json", "merges.txt"):
        (tmp_path / name).unlink(missing_ok=True)
    document = json.loads((tmp_path / "tokenizer.json").read_text("utf-8"))
    document["model"]["end_of_word_suffix"] = "</w>"
    (tmp_path / "tokenizer.json").write_text(json.dumps(document), "utf-8")
    assert open_tokenizer(tmp_path).class_name == "CLIPTokenizer"
    document["model"]["end_of_word_suffix"] = None
    (tmp_path / "tokenizer.json").write_text(json.dumps(document), "utf-8")
    with pytest.raises(ConversionError, match="a tokenizer with a BPE model") as caught:
        open_tokenizer(tmp_path)
    assert caught.value.code == "tokenizer.unsupported"

"""The proof: transformers in a process of its own, and a tokenizer that differs is found out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from conversions.tokenizers import compare
from conversions.tokenizers.compare import PROMPTS, compare_tokenizers
from conversions.tokenizers.registry import open_tokenizer
from tests import gemma_vocabulary
from tests.sdsetup.imaging import clip_vocabulary

pytestmark = pytest.mark.torch


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    clip_vocabulary.write(tmp_path, config={"model_max_length": 77})
    first = len(json.loads((tmp_path / "vocab.json").read_text("utf-8")))
    (tmp_path / "added_tokens.json").write_text(json.dumps({"<cat-toy>": first}), "utf-8")
    return tmp_path


def test_no_prompt_differs(folder: Path) -> None:
    assert compare_tokenizers(folder) == []


def test_a_difference_is_found_and_so_are_added_tokens(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def without_added_tokens(place: Path) -> object:
        from conversions.tokenizers.clip import open_clip
        from conversions.tokenizers.files import TokenizerFiles, read_files

        files = read_files(place)
        content = {name: text for name, text in files.content.items() if name != "added_tokens.json"}
        forgetful = open_clip(
            TokenizerFiles(label=files.label, names=files.names, content=content), "CLIPTokenizer"
        )
        object.__setattr__(forgetful, "added_tokens", ("<cat-toy>",))
        return forgetful

    monkeypatch.setattr(compare, "open_tokenizer", without_added_tokens)
    assert compare_tokenizers(folder, PROMPTS[:3]) == ["a photo of <cat-toy>, <cat-toy>s and x<cat-toy>y"]


def test_a_tokenizer_that_fills_up_at_the_beginning_is_compared_so(tmp_path: Path) -> None:
    gemma_vocabulary.write(tmp_path, padding_side="left")
    assert open_tokenizer(tmp_path).pads_left
    assert compare_tokenizers(tmp_path, PROMPTS[:6]) == []


def test_prompts_are_empty_and_endless_and_of_many_letters() -> None:
    assert PROMPTS[:2] == ("", " ")
    assert "supercalifragilistic" * 40 in PROMPTS
    assert "word " * 200 in PROMPTS
    assert len(PROMPTS) == len(set(PROMPTS)) == 15
    assert any("<|endoftext|>" in prompt for prompt in PROMPTS)
    assert len({letter for prompt in PROMPTS for letter in prompt if ord(letter) > 127}) > 40

"""The proof: transformers in a process of its own, and a tokenizer that differs is found out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from conversions.tokenizers import compare
from conversions.tokenizers.compare import PROMPTS, compare_tokenizers
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

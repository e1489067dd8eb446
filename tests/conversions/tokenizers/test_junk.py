"""Junk in the place of each value of a tokenizer's files gives a tokenizer or one clear message."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from conversions.errors import ConversionError
from conversions.tokenizers import open_tokenizer
from conversions.tokenizers.files import TokenizerFiles, read_files
from tests import gemma_vocabulary, qwen_vocabulary
from tests.conversions.tokenizers import t5_vocabulary
from tests.sdsetup.imaging import clip_vocabulary

JUNK = (
    None,
    "junk",
    "",
    3,
    -1,
    1.5,
    10**30,
    True,
    [],
    ["junk"],
    [None],
    [[1]],
    {},
    {"junk": 1},
    {"type": 3},
    "\ud83d",
)
ROLES = {
    "bos_token": "a",
    "eos_token": "b",
    "pad_token": {"content": "c"},
    "unk_token": "d",
    "sep_token": "e",
}
MADE: dict[str, Callable[[Path], object]] = {
    "CLIPTokenizer": clip_vocabulary.write,
    "Qwen2Tokenizer": lambda folder: qwen_vocabulary.write(folder, whole=True),
    "GemmaTokenizer": gemma_vocabulary.write,
    "T5Tokenizer": t5_vocabulary.write,
}


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield each place of a document, as its container and key; of long lists the first and the last."""
    if isinstance(value, dict):
        keys = list(value) if len(value) < 40 else list(value)[:2]
    elif isinstance(value, list):
        keys = sorted({0, len(value) - 1}) if value else []
    else:
        return
    for key in keys:
        yield value, key
        yield from places(value[key])


@pytest.mark.parametrize("made", MADE)
def test_junk_anywhere_gives_a_tokenizer_or_one_message(made: str, tmp_path: Path) -> None:
    MADE[made](tmp_path)
    path = tmp_path / "tokenizer_config.json"
    config = json.loads(path.read_text("utf-8")) if path.exists() else {}
    path.write_text(
        json.dumps({"tokenizer_class": made, **ROLES, "extra_special_tokens": ["f"], **config}), "utf-8"
    )
    whole = read_files(tmp_path)
    outcomes = set()
    for name in whole.content:
        if not name.endswith(".json"):
            continue
        document = json.loads(whole.content[name])
        for container, key in places(document):
            before = container[key]
            for junk in JUNK:
                container[key] = junk
                content = {**whole.content, name: json.dumps(document).encode()}
                files = TokenizerFiles(label="made", names=whole.names, content=content)
                try:
                    tokenizer = open_tokenizer(files)
                    tokenizer.encode("a horse <|endoftext|></s>")
                    assert tokenizer.length >= 1
                    assert 0 <= tokenizer.padding < tokenizer.size
                    outcomes.add("read")
                except ConversionError as error:
                    assert error.message, (name, key, junk)
                    assert error.hint, (name, key, junk)
                    outcomes.add(error.code)
                except Exception as error:
                    raise AssertionError((name, key, junk)) from error
            container[key] = before
    assert {"read", "tokenizer.broken"} <= outcomes

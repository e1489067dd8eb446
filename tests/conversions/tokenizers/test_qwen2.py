"""Qwen's tokens are those of transformers, and so is the text of a conversation's first message."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from conversions.errors import ConversionError
from conversions.families.shared.flow_recipe import chat
from conversions.tokenizers import open_tokenizer
from sdsetup.imaging import prompts
from sdsetup.imaging.tokenizer import PromptTokenizer
from tests import qwen_vocabulary
from tests.conversions.tokenizers.odd_prompts import odd_prompts

LENGTH = 64
MADE: dict[str, Callable[[Path], object]] = {
    "vocabulary and merges": qwen_vocabulary.write,
    "one file": lambda folder: qwen_vocabulary.write(folder, whole=True),
    "padding on the left": lambda folder: qwen_vocabulary.write(folder, padding_side="left"),
    "the older class name": lambda folder: qwen_vocabulary.write(
        folder, tokenizer_class="Qwen2TokenizerFast"
    ),
    "a space before each text": lambda folder: qwen_vocabulary.write(folder, add_prefix_space=True),
    "special tokens as text": lambda folder: qwen_vocabulary.write(folder, split_special_tokens=True),
}


@pytest.mark.torch
@pytest.mark.parametrize("thinking", [True, False])
@pytest.mark.parametrize("made", MADE)
def test_conversations_and_their_tokens_are_those_of_transformers(
    made: str, thinking: bool, tmp_path: Path
) -> None:
    from transformers import Qwen2Tokenizer

    MADE[made](tmp_path)
    reference = Qwen2Tokenizer.from_pretrained(tmp_path, local_files_only=True)
    tokenizer = PromptTokenizer(folder=tmp_path, length=LENGTH)
    for prompt in odd_prompts():
        text = reference.apply_chat_template(
            [{"role": "user", "content": prompt}],
            tokenize=False,
            add_generation_prompt=True,
            enable_thinking=thinking,
        )
        before, after = chat(thinking=thinking)
        assert before + prompt + after == text
        expected = reference(text, padding="max_length", max_length=LENGTH, truncation=True)
        found = prompts.tokenize(prompt, tokenizer, length=LENGTH, before=before, after=after)
        assert found.ids[0].tolist() == expected.input_ids, prompt
        assert found.mask[0].tolist() == expected.attention_mask, prompt


def test_a_text_is_filled_up_to_a_multiple_where_that_is_enough(tmp_path: Path) -> None:
    qwen_vocabulary.write(tmp_path)
    tokenizer = PromptTokenizer(folder=tmp_path, length=LENGTH)
    words = tokenizer.encode("a horse on the moon")
    short = prompts.tokenize("a horse on the moon", tokenizer, length=LENGTH, multiple=16)
    assert short.ids.shape == short.mask.shape == (1, -(-len(words) // 16) * 16)
    assert short.mask.sum() == len(words)
    assert short.ids[0, : len(words)].tolist() == list(words)
    empty = prompts.tokenize("", tokenizer, length=LENGTH, multiple=16)
    assert empty.mask.shape == (1, 16)
    assert not empty.mask.any()


@pytest.mark.parametrize(
    ("config", "what"),
    [
        ({"padding_side": "both"}, "padding_side"),
        ({"model_max_length": "long"}, "model_max_length"),
        ({"model_max_length": 0}, "model_max_length"),
    ],
)
def test_junk_in_the_configuration_is_named(config: dict, what: str, tmp_path: Path) -> None:
    qwen_vocabulary.write(tmp_path, **config)
    with pytest.raises(ConversionError, match=what) as caught:
        open_tokenizer(tmp_path)
    assert caught.value.code == "tokenizer.broken"


@pytest.mark.parametrize(
    ("given", "length"), [(1, 1), (2, 2), (131_072, 131_072), (131_073, 131_072), (10**30, 131_072)]
)
def test_a_text_is_as_long_as_the_configuration_says_and_the_model_reads(
    given: int, length: int, tmp_path: Path
) -> None:
    qwen_vocabulary.write(tmp_path, model_max_length=given)
    assert open_tokenizer(tmp_path).length == length


def test_nothing_begins_or_ends_a_text_and_the_pad_token_fills_it_up(tmp_path: Path) -> None:
    size = qwen_vocabulary.write(tmp_path)
    tokenizer = open_tokenizer(tmp_path)
    assert (tokenizer.prefix, tokenizer.suffix, tokenizer.size) == ((), (), size)
    assert tokenizer.encode("<|endoftext|>") == (tokenizer.padding,)
    assert tokenizer.added_tokens == qwen_vocabulary.PLAIN
    assert tokenizer.pads_left is False
    qwen_vocabulary.write(tmp_path, padding_side="left")
    assert open_tokenizer(tmp_path).pads_left is True


def test_a_file_that_adds_tokens_of_its_own_is_refused(tmp_path: Path) -> None:
    qwen_vocabulary.write(tmp_path, whole=True)
    path = tmp_path / "tokenizer.json"
    document = json.loads(path.read_text("utf-8"))
    for step in (None, {"type": "ByteLevel", "trim_offsets": False}):
        path.write_text(json.dumps({**document, "post_processor": step}), "utf-8")
        assert open_tokenizer(tmp_path).encode("a horse")
    for step in ({"type": "TemplateProcessing"}, "TemplateProcessing"):
        path.write_text(json.dumps({**document, "post_processor": step}), "utf-8")
        with pytest.raises(
            ConversionError, match="post_processor of the type 'TemplateProcessing'"
        ) as caught:
            open_tokenizer(tmp_path)
        assert caught.value.code == "tokenizer.broken"

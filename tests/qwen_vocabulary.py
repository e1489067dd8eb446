"""A small byte-pair vocabulary of Qwen's kind, with the tokens and the template of its conversations."""

from __future__ import annotations

import json
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

TEXT = (
    "a photograph of an astronaut riding a horse on the moon, highly detailed, user assistant\n"
    "the quick brown fox's jumping over the lazy dog; don't you think they're lovely?\n"
    "красный квадрат 赤い四角 月の上の馬 100 200 3.14"
)
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
PLAIN = ("<think>", "</think>")
# What Qwen3's template does for messages of text; its parts for tools and for answers with thoughts are left
# out. Source: tokenizer_config.json of Qwen/Qwen3-4B.
TEMPLATE = (
    "{%- for message in messages %}"
    "{%- if message.content is string %}{%- set content = message.content %}"
    "{%- else %}{%- set content = '' %}{%- endif %}"
    "{{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}"
    "{%- if enable_thinking is defined and enable_thinking is false %}"
    "{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}{%- endif %}"
)


def learn(count: int, words: list[list[str]]) -> list[tuple[str, str]]:
    """Find the most frequent pairs; equals in alphabetical order, so that every run finds the same.

    Args:
        count: How many.
        words: Each as its letters.
    """
    merges: list[tuple[str, str]] = []
    for _ in range(count):
        pairs = Counter(pair for word in words for pair in pairwise(word))
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        words = [_merged(word, best) for word in words]
    return merges


def _merged(word: list[str], pair: tuple[str, str]) -> list[str]:
    merged: list[str] = []
    for letter in word:
        if merged and (merged[-1], letter) == pair:
            merged[-1] += letter
        else:
            merged.append(letter)
    return merged


def write(folder: Path, *, whole: bool = False, **config: Any) -> int:
    """Write vocab.json and merges.txt, or one tokenizer.json, with a configuration; return the size."""
    from tokenizers import pre_tokenizers

    folder.mkdir(parents=True, exist_ok=True)
    split = pre_tokenizers.ByteLevel(add_prefix_space=False)
    pairs = learn(100, [list(word) for word, _ in split.pre_tokenize_str(TEXT)])
    pieces = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *("".join(pair) for pair in pairs)]
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    added = {
        len(vocabulary) + place: {"content": token, **flags, "special": token in SPECIAL}
        for place, token in enumerate((*SPECIAL, *PLAIN))
    }
    merges = [" ".join(pair) for pair in pairs]
    if whole:
        parts = {"type": "BPE", "vocab": vocabulary, "merges": [list(pair) for pair in pairs]}
        document = {
            "version": "1.0",
            "model": parts,
            "added_tokens": [{"id": number, **token} for number, token in added.items()],
        }
        (folder / "tokenizer.json").write_text(json.dumps(document), "utf-8")
    else:
        (folder / "vocab.json").write_text(json.dumps(vocabulary), "utf-8")
        (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n", "utf-8")
    settings = {
        "tokenizer_class": "Qwen2Tokenizer",
        "added_tokens_decoder": {str(number): token for number, token in added.items()},
        "additional_special_tokens": ["<|im_start|>", "<|im_end|>"],
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "model_max_length": 131072,
        "chat_template": TEMPLATE,
        **config,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), "utf-8")
    return len(vocabulary) + len(added)

"""Proof that a tokenizer gives transformers' ids: a fixed list of prompts through both."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from conversions.isolated_process import isolated_process
from conversions.tokenizers.registry import open_tokenizer

PROMPTS: tuple[str, ...] = (
    "",
    " ",
    "a photograph of an astronaut riding a horse",
    "  Two   spaces\tand\nlines  ",
    "DON'T they're I'll we've she'd it's 'S",
    "100 cats, 3.14 and ½",
    "hello!!! (what?) [no] {yes} <|endoftext|> <|STARTOFTEXT|> x<|endoftext|>y",
    "!",
    "é vs e\u0301, naïve café, ÅNGSTRÖM, İstanbul, ß, ﬁ",
    "красный квадрат, 赤い四角, 月の上の馬, عربى, 한국어, ไทย",
    "😀👩\u200d👩\u200d👧 🏳️\u200d🌈 👍🏽",
    "zero\u200bwidth, nbsp\u00a0here, \u3000wide, \x00 and \x7f",
    "a_b__c --- ... -- x=5 http://x.y/z?q=1",
    "supercalifragilistic" * 40,
    "word " * 200,
)
# Tokens that are compared: enough to see how long texts are cut and short ones filled up. Language models
# read 131,072, which would be as many for each prompt.
_MOST_TOKENS = 256


def compare_tokenizers(folder: Path, prompts: Sequence[str] = PROMPTS) -> list[str]:
    """Tokenize prompts with our tokenizer and with transformers'; a prompt for each added token is put in.

    Args:
        folder: The tokenizer's folder, on this machine.
        prompts: What to compare.

    Returns:
        The prompts that the two give different ids, padding included; none is proof.

    Raises:
        ConversionError: The tokenizer cannot be opened, or the process for transformers died.
    """
    tokenizer = open_tokenizer(folder)
    length = min(tokenizer.length, _MOST_TOKENS)
    added = [f"a photo of {token}, {token}s and x{token}y" for token in tokenizer.added_tokens]
    texts = list(dict.fromkeys([*prompts, *added]))
    with isolated_process("transformers' tokenizer") as process:
        references = process.call(_reference, folder, tokenizer.class_name, length, texts)
    differing = []
    for text, expected in zip(texts, references, strict=True):
        begin, end = tokenizer.prefix, tokenizer.suffix
        words = tokenizer.encode(text)[: length - len(begin) - len(end)]
        ids = [*begin, *words, *end]
        filling = [tokenizer.padding] * (length - len(ids))
        if (filling + ids if tokenizer.pads_left else ids + filling) != expected:
            differing.append(text)
    return differing


def _reference(folder: Path, class_name: str, length: int, texts: Sequence[str]) -> list[list[int]]:
    """Runs in a process of its own, which alone pays for transformers."""
    import transformers

    # It asks for sentencepiece before it reads a spiece.model, and reads it with protobuf alone.
    reader: Any = import_module("transformers.convert_slow_tokenizer")
    reader.requires_backends = lambda *_: None
    tokenizer = getattr(transformers, class_name).from_pretrained(folder, local_files_only=True)
    return [
        tokenizer(text, padding="max_length", max_length=length, truncation=True).input_ids for text in texts
    ]

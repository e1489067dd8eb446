"""A CLIP tokenizer with the world's own words, and single letters for all others.

The files are what any CLIP tokenizer reads: ``vocab.json`` (the 256 bytes, each also as the end of a word,
then the merges' results) and ``merges.txt``. Each of the world's words is one token; any other text still
has tokens.
"""

from __future__ import annotations

import json
from pathlib import Path

from transformers import CLIPTokenizer

from tests.demo_training.world import COLOUR_NAMES, SHAPE_NAMES

MODEL_MAX_LENGTH = 77
_START, _END = "<|startoftext|>", "<|endoftext|>"
_WORDS = (
    *("a", "an", "on", "of", "left", "right", "background", "one", "two", "three", "small", "large"),
    *COLOUR_NAMES,
    *SHAPE_NAMES,
    *(f"{name}es" if name.endswith("ss") else f"{name}s" for name in SHAPE_NAMES),
)


def write_tokenizer(folder: Path) -> CLIPTokenizer:
    """Write the tokenizer's files and load them the ordinary way."""
    letters = _byte_letters()
    merges = _merges()
    tokens = [
        *letters,
        *(f"{letter}</w>" for letter in letters),
        *("".join(pair) for pair in merges),
        _START,
        _END,
    ]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(
        json.dumps({token: index for index, token in enumerate(tokens)}, ensure_ascii=False), encoding="utf-8"
    )
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    settings = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": MODEL_MAX_LENGTH,
        "bos_token": _START,
        "eos_token": _END,
        "unk_token": _END,
        "pad_token": _END,
        "add_prefix_space": False,
        "do_lower_case": True,
        "errors": "replace",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    specials = {key: value for key, value in settings.items() if key.endswith("_token")}
    (folder / "special_tokens_map.json").write_text(json.dumps(specials, indent=2) + "\n", encoding="utf-8")
    return CLIPTokenizer.from_pretrained(folder)


def _merges() -> list[tuple[str, str]]:
    """Word by word: apply the merges so far, then join what is left from the front.

    A new merge ranks after all before it, so it can not change how an earlier word is split.
    """
    merges: list[tuple[str, str]] = []
    for word in _WORDS:
        pieces = [*word[:-1], f"{word[-1]}</w>"]
        for pair in merges:
            pieces = _apply(pair, pieces)
        while len(pieces) > 1:
            merges.append((pieces[0], pieces[1]))
            pieces = _apply(merges[-1], pieces)
    return merges


def _apply(pair: tuple[str, str], pieces: list[str]) -> list[str]:
    joined: list[str] = []
    for piece in pieces:
        if joined and (joined[-1], piece) == pair:
            joined[-1] += piece
        else:
            joined.append(piece)
    return joined


def _byte_letters() -> list[str]:
    """One printable letter for each byte: printable Latin-1 stands for itself, the rest for 256 onward.

    Source: ``bytes_to_unicode`` of OpenAI's GPT-2 encoder, which CLIP's vocabulary shares.
    """
    printable = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    return [*map(chr, printable), *(chr(256 + index) for index in range(256 - len(printable)))]

"""The tokenizer files of CLIP, which every family with CLIP's text encoders has."""

from __future__ import annotations

import json
import lzma
from functools import cache
from pathlib import Path

from conversions.tokenizers.clip import CLIP_LENGTH

_MERGES = Path(__file__).parent / "clip" / "merges.txt.xz"
_START, _END = "<|startoftext|>", "<|endoftext|>"


@cache
def _vocabulary() -> tuple[bytes, bytes]:
    """Return ``vocab.json`` and ``merges.txt``.

    Source: CLIP's ``simple_tokenizer.py``: 256 bytes, the same as ends of words, a token for each merge, two
    special tokens.
    """
    merges = lzma.decompress(_MERGES.read_bytes())
    pairs = merges.decode("utf-8").split("\n")[1:-1]
    # Bytes that print stand for themselves and come first; the others are moved behind the last of them.
    printed = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    letters = [chr(byte) for byte in printed] + [chr(256 + place) for place in range(256 - len(printed))]
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), *("".join(pair.split()) for pair in pairs)]
    numbers = {token: number for number, token in enumerate([*tokens, _START, _END])}
    return json.dumps(numbers, ensure_ascii=False).encode(), merges


def tokenizer_files(folder: str, *, padding: str = _END) -> dict[str, bytes]:
    """Return the files of a tokenizer by their names in a checkpoint.

    Args:
        folder: The tokenizer's folder.
        padding: The token that fills up a short text: ``<|endoftext|>``, or ``!`` for OpenCLIP's encoders.
    """
    vocabulary, merges = _vocabulary()
    special = {"bos_token": _START, "eos_token": _END, "unk_token": _END, "pad_token": padding}
    config = {
        **special,
        "add_prefix_space": False,
        "do_lower_case": True,
        "errors": "replace",
        "model_max_length": CLIP_LENGTH,
        "tokenizer_class": "CLIPTokenizer",
    }
    return {
        f"{folder}/vocab.json": vocabulary,
        f"{folder}/merges.txt": merges,
        f"{folder}/special_tokens_map.json": json.dumps(special).encode(),
        f"{folder}/tokenizer_config.json": json.dumps(config).encode(),
    }

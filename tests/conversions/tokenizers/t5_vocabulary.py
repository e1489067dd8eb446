"""A small unigram vocabulary of T5's kind, for tests."""

from __future__ import annotations

import base64
import json
import math
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

from tests.sdsetup.imaging.clip_vocabulary import TEXT

SPACE = "▁"
SENTINELS = [f"<extra_id_{number}>" for number in range(100)]
# What sentencepiece 0.2.3 compiles of five rules: ligature fi, one half, two wide spaces, e with an accent
# behind it, one in a circle.
CHARACTERS = zlib.decompress(
    base64.b64decode(
        "eNod0wWsFlQUAODDUzc2ZFMpR4jSiAKPRpFGSkAapBsEUTFA8qc2mNQjJJWU0aUSSneHgqKYYAuKdMP3c7dv58bZzn"
        "bPvfFgRExIF10qPBAHIyWG5orIEJGYkzGSI+E4kTYiJZLrFPNEzpRIFI5Yll7uQxHp7T0q8REy8RhZyEw2srJpUMTj"
        "Yg6yo0TkJDdP8BRPkpc85CcfBSmAclGIIjzNszxDMYqSSnFKUoLSlKIsZShPOZ7nOV6gApWoSBUqU42q1KA6NXmR2t"
        "SiLnWox0s0oD4NeZnGNKIpTWhOM1rSgla8Qhta0462dKA9nehIFzrTja70oDs9eZXX6MXr9OZN3uAt+vAOb9OXd3mP"
        "fgygP9oRAxnCYIYmG81whjGSEZyWdMbFjjYfxfv8tyhirDiG8YwjLfmEmMREpjCZqXzAdKYxkxl8yCxm8xFzmcN85v"
        "ExC9j+cMRCcTHKxlKWsJxlrGQFq1nFJ6zhMz5lHWvZwHq+4PPke2QjW9jMNrayI1mTXexkD7vZx14OsJ9DHOQIhznG"
        "Ub7iS05wnG/4mm85ySm+4we+5yd+5Bd+5kzyzvmNX/mD3/mLP/mHvznH2WQv+Jf/Oc9FLnCZS1zlCte5xk1ucJtb3O"
        "XO/b+XGqnFSkTXHrFjcdwDJNqQEg=="
    )
)
CONFIG = {"tokenizer_class": "T5Tokenizer", "model_max_length": 512, "extra_ids": 100}


def pieces() -> list[tuple[str, float]]:
    """Return special tokens, then short parts of a few lines, each with the logarithm of its frequency."""
    words = [SPACE + word for line in TEXT for word in line.split()]
    counts: Counter[str] = Counter()
    for word in words:
        counts.update(word[a:b] for a in range(len(word)) for b in range(a + 1, min(a + 7, len(word) + 1)))
    counts.update("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,!?/-'()[]<>:é")
    total = math.log(counts.total())
    found = [(piece, math.log(count) - total) for piece, count in sorted(counts.items())]
    return [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *found, *((each, 0.0) for each in SENTINELS[::-1])]


def write(folder: Path, *, characters: bool = True, **config: Any) -> int:
    """Write a tokenizer.json and a tokenizer_config.json, and return the number of tokens."""
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = pieces()
    character_map = base64.b64encode(CHARACTERS).decode()
    document = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": number,
                "content": piece,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
            for number, (piece, _) in enumerate(vocabulary)
            if number < 3 or piece in SENTINELS
        ],
        "normalizer": {"type": "Precompiled", "precompiled_charsmap": character_map} if characters else None,
        "pre_tokenizer": {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": "always"},
        "post_processor": None,
        "decoder": None,
        "model": {"type": "Unigram", "unk_id": 2, "vocab": vocabulary, "byte_fallback": False},
    }
    (folder / "tokenizer.json").write_text(json.dumps(document), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps({**CONFIG, **config}), encoding="utf-8")
    return len(vocabulary)


def write_sentencepiece(folder: Path, *, characters: bool = True, **config: Any) -> int:
    """Write a spiece.model, as sentencepiece does, and a tokenizer_config.json; return the number of tokens.

    The sentinels are no pieces of it: T5's tokenizer adds them.
    """
    from transformers.utils import sentencepiece_model_pb2_new as messages

    folder.mkdir(parents=True, exist_ok=True)
    model = messages.ModelProto()
    model.trainer_spec.model_type = messages.TrainerSpec.UNIGRAM
    model.trainer_spec.unk_id = 2
    kinds = {"<pad>": messages.ModelProto.SentencePiece.CONTROL}
    kinds |= {"</s>": kinds["<pad>"], "<unk>": messages.ModelProto.SentencePiece.UNKNOWN}
    vocabulary = [each for each in pieces() if each[0] not in SENTINELS]
    for piece, score in vocabulary:
        kind = kinds.get(piece, messages.ModelProto.SentencePiece.NORMAL)
        model.pieces.add(piece=piece, score=score, type=kind)
    model.normalizer_spec.name = "nmt_nfkc"
    if characters:
        model.normalizer_spec.precompiled_charsmap = CHARACTERS
    (folder / "spiece.model").write_bytes(model.SerializeToString())
    (folder / "tokenizer_config.json").write_text(json.dumps({**CONFIG, **config}), encoding="utf-8")
    return len(vocabulary) + len(SENTINELS)

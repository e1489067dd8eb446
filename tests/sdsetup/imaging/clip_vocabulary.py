"""A small byte-pair vocabulary of CLIP's kind, learned from a few lines, for tests."""

import json
from collections import Counter
from itertools import pairwise
from pathlib import Path

TEXT = [
    "a photograph of an astronaut riding a horse on the moon, highly detailed, 4k",
    "the quick brown fox's jumping over the lazy dog; don't you think they're lovely?",
    "ein kleines rotes Quadrat und ein großer blauer Kreis, café naïve résumé",
    "красный квадрат 赤い四角 月の上の馬 100 200 3.14",
]


def learn(count: int) -> list[tuple[str, str]]:
    """Find the most frequent pairs; equals in alphabetical order, so that every run finds the same."""
    from tokenizers import normalizers, pre_tokenizers

    normal = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    split = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    pieces = [word for line in TEXT for word, _ in split.pre_tokenize_str(normal.normalize_str(line))]
    words = [[*piece[:-1], piece[-1] + "</w>"] for piece in pieces]
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


def write(folder: Path, *, whole: bool = False, config: dict | None = None) -> Path:
    """Write vocab.json and merges.txt, or one tokenizer.json, and a tokenizer_config.json."""
    from tokenizers import pre_tokenizers

    folder.mkdir(parents=True, exist_ok=True)
    pairs = learn(120)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = dict.fromkeys([*alphabet, *(letter + "</w>" for letter in alphabet)])
    words |= dict.fromkeys("".join(pair) for pair in pairs)
    words |= dict.fromkeys(("<|startoftext|>", "<|endoftext|>"))
    vocabulary = {word: number for number, word in enumerate(words)}
    merges = [" ".join(pair) for pair in pairs]
    if whole:
        parts = {"type": "BPE", "vocab": vocabulary, "merges": merges, "end_of_word_suffix": "</w>"}
        document = {"version": "1.0", "model": parts, "added_tokens": []}
        (folder / "tokenizer.json").write_text(json.dumps(document), encoding="utf-8")
    else:
        (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
        (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n", encoding="utf-8")
    if config is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def write_for_encoder(folder: Path) -> dict[str, int]:
    """Write a tokenizer and return what a text encoder's configuration must know of it."""
    vocabulary = write(folder, config={"model_max_length": 77})
    words = json.loads((vocabulary / "vocab.json").read_text("utf-8"))
    return {
        "vocab_size": len(words),
        "bos_token_id": words["<|startoftext|>"],
        "eos_token_id": words["<|endoftext|>"],
        "pad_token_id": 1,
    }

"""A small byte-pair vocabulary of CLIP's kind, learned from a few lines, for tests."""

import json
from pathlib import Path

TEXT = [
    "a photograph of an astronaut riding a horse on the moon, highly detailed, 4k",
    "the quick brown fox's jumping over the lazy dog; don't you think they're lovely?",
    "ein kleines rotes Quadrat und ein großer blauer Kreis, café naïve résumé",
    "красный квадрат 赤い四角 月の上の馬 100 200 3.14",
]


def write(folder: Path, *, whole: bool = False, config: dict | None = None) -> Path:
    """Write vocab.json and merges.txt, or one tokenizer.json, and a tokenizer_config.json."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    folder.mkdir(parents=True, exist_ok=True)
    learner = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    learner.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    trainer = trainers.BpeTrainer(vocab_size=400, end_of_word_suffix="</w>", show_progress=False)
    learner.train_from_iterator(TEXT * 3, trainer)
    model = json.loads(learner.to_str())["model"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = dict.fromkeys([*alphabet, *(letter + "</w>" for letter in alphabet)])
    words |= dict.fromkeys("".join(pair) for pair in model["merges"])
    words |= dict.fromkeys(("<|startoftext|>", "<|endoftext|>"))
    vocabulary = {word: number for number, word in enumerate(words)}
    merges = [" ".join(pair) for pair in model["merges"]]
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

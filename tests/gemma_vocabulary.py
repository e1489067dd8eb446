"""A small byte-pair vocabulary of Gemma's kind, for tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.qwen_vocabulary import learn

SPACE = "▁"
TEXT = (
    "a photograph of an astronaut riding a horse on the moon, highly detailed, enhanced descriptions\n"
    "the quick brown fox's jumping over the lazy dog; don't you think they're lovely?\n"
    "Given a user prompt: add colors, shapes, sizes, textures and relationships. A cat sleeping on a street\n"
    "красный квадрат 赤い四角 100 200 3.14"
)
SPECIAL = ("<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<start_of_turn>", "<end_of_turn>")
CONFIG = {
    "tokenizer_class": "GemmaTokenizer",
    "add_bos_token": True,
    "add_eos_token": False,
    "model_max_length": 10**30,
    "padding_side": "right",
}


def template(*, first: bool = True, last: bool = False) -> dict[str, Any]:
    """Return the post-processor that adds the tokens which begin and end a text."""
    parts: list[dict[str, Any]] = [{"Sequence": {"id": "A", "type_id": 0}}]
    if first:
        parts.insert(0, {"SpecialToken": {"id": "<bos>", "type_id": 0}})
    if last:
        parts.append({"SpecialToken": {"id": "<eos>", "type_id": 0}})
    known = {
        token: {"id": token, "ids": [SPECIAL.index(token)], "tokens": [token]} for token in ("<bos>", "<eos>")
    }
    second = {"Sequence": {"id": "B", "type_id": 1}}
    return {
        "type": "TemplateProcessing",
        "single": parts,
        "pair": [*parts, second],
        "special_tokens": known,
    }


def write(folder: Path, *, post_processor: Any = None, **config: Any) -> int:
    """Write a tokenizer.json with a configuration; return the size of the vocabulary.

    Args:
        folder: Where to.
        post_processor: Of the tokenizer.json; None is the one that puts the start first.
        **config: Fields of the configuration; None leaves one out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pairs = learn(150, [list(part) for part in _parts(TEXT)])
    vocabulary = {piece: number for number, piece in enumerate(_pieces(pairs))}
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    document = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": place, "content": token, **flags} for place, token in enumerate(SPECIAL)],
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": SPACE},
        "pre_tokenizer": {
            "type": "Split",
            "pattern": {"String": " "},
            "behavior": "MergedWithPrevious",
            "invert": False,
        },
        "post_processor": template() if post_processor is None else post_processor,
        "decoder": None,
        "model": {
            "type": "BPE",
            "unk_token": "<unk>",
            "fuse_unk": True,
            "byte_fallback": True,
            "vocab": vocabulary,
            "merges": [" ".join(pair) for pair in pairs],
        },
    }
    (folder / "tokenizer.json").write_text(json.dumps(document), encoding="utf-8")
    _write_config(folder, config)
    return len(vocabulary)


def write_sentencepiece(folder: Path, *, kind: str = "BPE", **config: Any) -> int:
    """Write a tokenizer.model, as sentencepiece does, with a configuration; return the vocabulary's size."""
    from transformers.utils import sentencepiece_model_pb2_new as messages

    folder.mkdir(parents=True, exist_ok=True)
    pieces = _pieces(learn(150, [list(part) for part in _parts(TEXT)]))
    model = messages.ModelProto()
    model.trainer_spec.model_type = getattr(messages.TrainerSpec, kind)
    kinds = messages.ModelProto.SentencePiece
    for number, piece in enumerate(pieces):
        score = 0.0 if piece in SPECIAL else -float(number)
        model.pieces.add(piece=piece, score=score, type=kinds.NORMAL)
        if piece in SPECIAL:
            model.pieces[-1].type = kinds.USER_DEFINED if piece == "<mask>" else kinds.CONTROL
        elif piece.startswith("<0x"):
            model.pieces[-1].type = kinds.BYTE
    model.pieces[SPECIAL.index("<unk>")].type = kinds.UNKNOWN
    (folder / "tokenizer.model").write_bytes(model.SerializeToString())
    _write_config(folder, config)
    return len(pieces)


def _pieces(pairs: list[tuple[str, str]]) -> list[str]:
    letters = sorted({letter for word in _parts(TEXT) for letter in word})
    pieces = [*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256)), *map("".join, pairs), *letters]
    return list(dict.fromkeys(pieces))


def _write_config(folder: Path, config: dict[str, Any]) -> None:
    settings = {name: value for name, value in {**CONFIG, **config}.items() if value is not None}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")


def _parts(text: str) -> list[str]:
    """Split a text before its spaces, as the pairs of a real vocabulary never reach beyond one."""
    return [SPACE + word for word in text.split(" ")]

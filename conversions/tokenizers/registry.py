"""Which class a tokenizer is, and who opens it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from conversions.checkpoint.storage import Storage
from conversions.errors import ConversionError
from conversions.tokenizers.clip import open_clip
from conversions.tokenizers.files import (
    MERGES,
    VOCABULARY,
    WHOLE,
    TokenizerFiles,
    read_files,
    read_files_of,
)
from conversions.tokenizers.gemma import open_gemma
from conversions.tokenizers.qwen2 import open_qwen2
from conversions.tokenizers.t5 import open_t5
from conversions.tokenizers.tokenizer import Tokenizer

Opener = Callable[[TokenizerFiles, str], Tokenizer]

# Slow and fast tokenizers of one name give the same ids; transformers 5 has one class for both.
_OPENERS: Mapping[str, Opener] = MappingProxyType(
    {
        "CLIPTokenizer": open_clip,
        "GemmaTokenizer": open_gemma,
        "Qwen2Tokenizer": open_qwen2,
        "T5Tokenizer": open_t5,
    }
)

# What a tokenizer without tokenizer_config.json is, by a file that only this class has.
_TELLING_FILES = MappingProxyType(
    {
        "spiece.model": "a sentencepiece tokenizer, as T5 has",
        "sentencepiece.bpe.model": "a sentencepiece tokenizer",
        "tokenizer.model": "a sentencepiece tokenizer",
        "vocab.txt": "a WordPiece tokenizer, as BERT has",
    }
)


def open_tokenizer(place: Path | TokenizerFiles) -> Tokenizer:
    """Open the tokenizer in a folder, by the class that its ``tokenizer_config.json`` names.

    Args:
        place: The folder, or its files as ``read_files_of`` gives them.

    Raises:
        ConversionError: ``tokenizer.missing``; ``tokenizer.unsupported`` for another class, which names what
            is supported; ``tokenizer.broken`` or a code of the JSON reader for files that cannot be used.
    """
    files = read_files(place) if isinstance(place, Path) else place
    name = _class_name(files)
    if name.removesuffix("Fast") not in _OPENERS:
        raise ConversionError(
            "tokenizer.unsupported",
            f"The tokenizer in {files.label} is {name or 'of a class that its files do not name'}, "
            "which cannot be used yet.",
            f"Supported is {', '.join(sorted(_OPENERS))}, from {WHOLE}, or {VOCABULARY} and {MERGES}.",
        )
    return _OPENERS[name.removesuffix("Fast")](files, name.removesuffix("Fast"))


def open_tokenizer_of(storage: Storage, component: str) -> Tokenizer:
    """Open a tokenizer of a checkpoint, wherever its bytes are; see ``open_tokenizer``."""
    return open_tokenizer(read_files_of(storage, component))


def tokens_without_embedding(tokenizer: Tokenizer, rows: int) -> tuple[str, ...]:
    """Name the added tokens for which a text encoder has no embedding.

    transformers loads such a checkpoint, and fails when a prompt holds one of them.

    Args:
        tokenizer: The tokenizer.
        rows: Rows of the text encoder's embedding table, ``vocab_size`` of its configuration.
    """
    return tuple(token for token in tokenizer.added_tokens if max(tokenizer.encode(token), default=0) >= rows)


def _class_name(files: TokenizerFiles) -> str:
    given = files.config.get("tokenizer_class")
    if isinstance(given, str) and given:
        return given
    if given is not None:
        raise files.broken(f"its tokenizer_class is {given!r:.80}")
    for file, description in _TELLING_FILES.items():
        if file in files.names and MERGES not in files.names:
            return description
    # Checkpoints of 2022 name no class; a vocabulary with merges is CLIP's in all of them.
    model = files.json(WHOLE).get("model") if WHOLE in files.content else None
    if isinstance(model, dict) and model.get("end_of_word_suffix") == "</w>":
        return "CLIPTokenizer"
    if isinstance(model, dict):
        return f"a tokenizer with a {model.get('type')} model"
    return "CLIPTokenizer" if files.names & {VOCABULARY, MERGES} else ""

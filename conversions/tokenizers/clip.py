"""CLIP's byte-pair tokenizer, as transformers 5.23's ``CLIPTokenizer`` makes it.

Source: Radford et al. 2021 (CLIP), ``simple_tokenizer.py``; the pieces are put together as in transformers'
``models/clip/tokenization_clip.py``, so the same text gives the same ids. A ``tokenizer.json`` gives the
vocabulary and the merges alone; how text is split is the class's, as there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from conversions.tokenizers.added_tokens import AddedTokens, ids_of_roles, read_added_tokens
from conversions.tokenizers.byte_pairs import BytePairTokenizer, read_vocabulary, size_of
from conversions.tokenizers.files import TokenizerFiles

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend

_WORDS = r"""<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"""
_START, _END = "<|startoftext|>", "<|endoftext|>"
_DEFAULTS = {"bos_token": _START, "eos_token": _END, "unk_token": _END, "pad_token": _END}
# Position embeddings of every published CLIP text encoder.
CLIP_LENGTH = 77


def open_clip(files: TokenizerFiles, class_name: str) -> BytePairTokenizer:
    """Open a CLIP tokenizer.

    Raises:
        ConversionError: ``tokenizer.broken``; says what is wrong with which file.
    """
    added = read_added_tokens(files, _DEFAULTS)
    backend = _backend(files, added)
    start, end, padding = ids_of_roles(files, backend, added, "bos_token", "eos_token", "pad_token")
    return BytePairTokenizer(
        class_name=class_name,
        length=_length(files),
        size=size_of(backend),
        prefix=(start,),
        suffix=(end,),
        padding=padding,
        added_tokens=tuple(token.content for token in added.tokens if not token.special),
        backend=backend,
    )


def _backend(files: TokenizerFiles, added: AddedTokens) -> Backend:
    from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers
    from tokenizers.models import BPE

    vocabulary, merges = read_vocabulary(files)
    try:
        backend = Tokenizer(
            BPE(
                vocab=dict(vocabulary),
                merges=merges,
                continuing_subword_prefix="",
                end_of_word_suffix="</w>",
                fuse_unk=False,
                unk_token=added.roles.get("unk_token"),
            )
        )
        backend.normalizer = normalizers.Sequence(
            [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
        )
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False),
            ]
        )
        backend.add_tokens(list(added.tokens))
    except Exception as error:  # the library raises nothing narrower
        raise files.broken(str(error)) from error
    backend.encode_special_tokens = files.config.get("split_special_tokens") is True
    return backend


def _length(files: TokenizerFiles) -> int:
    given = files.config.get("model_max_length", files.config.get("max_len"))
    return CLIP_LENGTH if given is None else files.length(given, least=3, most=CLIP_LENGTH)

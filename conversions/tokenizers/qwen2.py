"""Qwen's byte-pair tokenizer, as transformers 5.23's ``Qwen2Tokenizer`` makes it; Qwen3 has the same.

Source: transformers' ``models/qwen2/tokenization_qwen2.py``: a ``tokenizer.json`` gives the vocabulary and
the merges alone; how text is split is the class's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from conversions.tokenizers.added_tokens import AddedTokens, ids_of_roles, read_added_tokens
from conversions.tokenizers.byte_pairs import BytePairTokenizer, read_vocabulary, size_of
from conversions.tokenizers.files import WHOLE, TokenizerFiles

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend

_WORDS = (
    r"""(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"""
    r"""| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"""
)
_END = "<|endoftext|>"
_DEFAULTS = {"eos_token": _END, "unk_token": _END, "pad_token": _END}
# Source: model_max_length of Qwen3's tokenizer_config.json.
_LONGEST = 131_072


def open_qwen2(files: TokenizerFiles, class_name: str) -> BytePairTokenizer:
    """Open a Qwen2 or Qwen3 tokenizer, which adds no tokens to a text.

    Raises:
        ConversionError: ``tokenizer.broken``; says what is wrong with which file.
    """
    added = read_added_tokens(files, _DEFAULTS)
    backend = _backend(files, added)
    (padding,) = ids_of_roles(files, backend, added, "pad_token")
    pads_left = files.pads_left("right")
    return BytePairTokenizer(
        class_name=class_name,
        length=files.length(files.config.get("model_max_length", _LONGEST), least=1, most=_LONGEST),
        size=size_of(backend),
        prefix=(),
        suffix=(),
        padding=padding,
        added_tokens=tuple(token.content for token in added.tokens if not token.special),
        backend=backend,
        pads_left=pads_left,
    )


def _backend(files: TokenizerFiles, added: AddedTokens) -> Backend:
    from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers
    from tokenizers.models import BPE

    _refuse_post_processor(files)
    vocabulary, merges = read_vocabulary(files)
    prefix_space = files.config.get("add_prefix_space") is True
    try:
        backend = Tokenizer(
            BPE(
                vocab=dict(vocabulary),
                merges=merges,
                continuing_subword_prefix="",
                end_of_word_suffix="",
                fuse_unk=False,
            )
        )
        backend.normalizer = normalizers.NFC()
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(_WORDS), behavior="isolated", invert=False),
                pre_tokenizers.ByteLevel(add_prefix_space=prefix_space, use_regex=False),
            ]
        )
        backend.add_tokens(list(added.tokens))
    except Exception as error:  # the library raises nothing narrower
        raise files.broken(str(error)) from error
    backend.encode_special_tokens = files.config.get("split_special_tokens") is True
    return backend


def _refuse_post_processor(files: TokenizerFiles) -> None:
    """See that a tokenizer.json adds no tokens of its own, which no published Qwen tokenizer does."""
    step = files.json(WHOLE).get("post_processor")
    kind = step.get("type") if isinstance(step, dict) else step
    if kind not in (None, "ByteLevel"):
        raise files.broken(f"{WHOLE} has a post_processor of the type {kind!r:.40}, which may add tokens")

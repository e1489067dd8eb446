"""Gemma's byte-pair tokenizer, as transformers 5.23's ``GemmaTokenizer`` makes it; Gemma 2 has the same.

Source: transformers' ``models/gemma/tokenization_gemma.py``: a ``tokenizer.json``, or sentencepiece's
``tokenizer.model`` where there is none, gives the vocabulary, the merges and the tokens that begin and end a
text; how text is split is the class's. Letters that the vocabulary lacks become the bytes of their UTF-8.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from conversions.tokenizers.added_tokens import AddedTokens, ids_of_roles, read_added_tokens
from conversions.tokenizers.byte_pairs import BytePairTokenizer, read_vocabulary, size_of
from conversions.tokenizers.files import SENTENCEPIECE_OF_GEMMA, WHOLE, TokenizerFiles

if TYPE_CHECKING:
    from tokenizers import AddedToken
    from tokenizers import Tokenizer as Backend

_DEFAULTS = {
    "bos_token": "<bos>",
    "eos_token": "<eos>",
    "unk_token": "<unk>",
    "pad_token": "<pad>",
    "mask_token": "<mask>",
}
_SPACE = "\N{LOWER ONE EIGHTH BLOCK}"
# Source: max_position_embeddings of transformers' Gemma2Config; the tokenizer's own files name no end.
_LONGEST = 8192


@dataclass(frozen=True, kw_only=True)
class _Model:
    """What a text is split by.

    Attributes:
        vocabulary: Id of each piece.
        merges: Pairs of pieces that are merged, first ones first.
        whole: Tokens that are found before a text is split, beside those that other files add.
    """

    vocabulary: Mapping[str, int]
    merges: list[tuple[str, str]]
    whole: tuple[AddedToken, ...] = ()


def open_gemma(files: TokenizerFiles, class_name: str) -> BytePairTokenizer:
    """Open a Gemma tokenizer.

    Raises:
        ConversionError: ``tokenizer.broken``; says what is wrong with which file.
    """
    if WHOLE in files.content:
        vocabulary, merges = read_vocabulary(files)
        model = _Model(vocabulary=vocabulary, merges=merges)
    else:
        model = _from_sentencepiece(files)
    added = read_added_tokens(files, _DEFAULTS)
    tokens = (*added.tokens, *model.whole)
    backend = _backend(files, model, added.roles.get("unk_token"), tokens)
    (padding,) = ids_of_roles(files, backend, added, "pad_token")
    pads_left = files.pads_left("left")
    prefix, suffix = _ends(files, backend, added)
    return BytePairTokenizer(
        class_name=class_name,
        length=files.length(files.config.get("model_max_length", _LONGEST), least=2, most=_LONGEST),
        size=size_of(backend),
        prefix=prefix,
        suffix=suffix,
        padding=padding,
        added_tokens=tuple(token.content for token in added.tokens if not token.special),
        backend=backend,
        pads_left=pads_left,
    )


def _from_sentencepiece(files: TokenizerFiles) -> _Model:
    """Read what a slow tokenizer of transformers 4 was saved as.

    A piece is merged of any two pieces that it consists of; pieces with low ids are merged first.

    Source: ``SentencePieceExtractor.extract`` and ``generate_merges`` of transformers.
    """
    from tokenizers import AddedToken

    if SENTENCEPIECE_OF_GEMMA not in files.content:
        raise files.broken(f"{WHOLE} and {SENTENCEPIECE_OF_GEMMA} are missing")
    read = files.sentencepiece(SENTENCEPIECE_OF_GEMMA)
    if not read.is_byte_pairs:
        raise files.broken(f"{SENTENCEPIECE_OF_GEMMA} holds no model of byte pairs, as Gemma's is")
    vocabulary = {piece: number for number, (piece, _) in enumerate(read.pieces)}
    merges: list[tuple[str, str]] = []
    for piece in vocabulary:
        pairs = [(piece[:place], piece[place:]) for place in range(1, len(piece))]
        merges += [pair for pair in pairs if pair[0] in vocabulary and pair[1] in vocabulary]
    whole = tuple(AddedToken(text, normalized=False, special=special) for text, special in read.whole)
    return _Model(vocabulary=vocabulary, merges=merges, whole=whole)


def _backend(
    files: TokenizerFiles, model: _Model, unknown: str | None, tokens: Sequence[AddedToken]
) -> Backend:
    from tokenizers import Tokenizer, normalizers, pre_tokenizers
    from tokenizers.models import BPE

    try:
        backend = Tokenizer(
            BPE(
                vocab=dict(model.vocabulary),
                merges=model.merges,
                fuse_unk=True,
                unk_token=unknown,
                byte_fallback=True,
            )
        )
        backend.normalizer = normalizers.Replace(" ", _SPACE)
        backend.pre_tokenizer = pre_tokenizers.Split(" ", behavior="merged_with_previous", invert=False)
        backend.add_tokens(list(tokens))
    except Exception as error:  # the library raises nothing narrower
        raise files.broken(str(error)) from error
    backend.encode_special_tokens = files.config.get("split_special_tokens") is True
    return backend


def _ends(
    files: TokenizerFiles, backend: Backend, added: AddedTokens
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the ids that begin and end every text.

    Source: ``PreTrainedTokenizerBase._from_pretrained`` of transformers: beside a ``tokenizer.json`` the
    configuration's ``add_bos_token`` and ``add_eos_token`` mean nothing.
    """
    if WHOLE not in files.content:
        begin, end = (
            ids_of_roles(files, backend, added, role) if files.config.get(f"add_{role}") else ()
            for role in ("bos_token", "eos_token")
        )
        return begin, end
    step = files.json(WHOLE).get("post_processor")
    if step is None:
        return (), ()
    kind = step.get("type") if isinstance(step, dict) else step
    if kind != "TemplateProcessing":
        raise files.broken(f"{WHOLE} has a post_processor of the type {kind!r:.40}, which may add tokens")
    ends: tuple[list[int], list[int]] = ([], [])
    behind = 0
    for part in _parts(files, step.get("single")):
        if "Sequence" in part:
            behind = 1
            continue
        described = part.get("SpecialToken")
        text = described.get("id") if isinstance(described, dict) else None
        number = backend.token_to_id(text) if isinstance(text, str) else None
        if number is None:
            raise files.broken(f"{part!r:.80} in the post_processor of {WHOLE} is no token")
        ends[behind].append(number)
    return tuple(ends[0]), tuple(ends[1])


def _parts(files: TokenizerFiles, single: Any) -> list[dict[str, Any]]:
    """Return what a text is made of: tokens, and the text itself once."""
    parts = [part for part in single if isinstance(part, dict)] if isinstance(single, list) else []
    if parts != single or sum("Sequence" in part for part in parts) != 1:
        raise files.broken(f"the post_processor of {WHOLE} does not say what a text is made of")
    return parts

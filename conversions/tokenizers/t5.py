"""T5's unigram tokenizer, as transformers 5.23's ``T5Tokenizer`` makes it.

Source: Kudo 2018, arXiv:1804.10959; the pieces are put together as in transformers'
``models/t5/tokenization_t5.py``, so the same text gives the same ids. A ``tokenizer.json``, or
sentencepiece's ``spiece.model`` where there is none, gives the pieces with their scores and the map of
characters alone; how text is split is the class's, as there.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from conversions.errors import ConversionError
from conversions.tokenizers.added_tokens import ids_of_roles, read_added_tokens
from conversions.tokenizers.files import SENTENCEPIECE, SPECIAL_TOKENS, WHOLE, TokenizerFiles

if TYPE_CHECKING:
    from tokenizers import AddedToken
    from tokenizers import Tokenizer as Backend

_DEFAULTS = {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
_SPACE = "\N{LOWER ONE EIGHTH BLOCK}"
# Source: T5Tokenizer.__init__; the place of <unk> is fixed there, whatever a file says.
_UNKNOWN = 2
_SENTINELS = 100
# T5 was trained on as many.
_LENGTH = 512


@dataclass(frozen=True, kw_only=True)
class T5Tokenizer:
    """Text to the token ids of a T5 text encoder; see ``conversions.tokenizers.Tokenizer``.

    Attributes:
        class_name: The class of transformers that gives the same ids.
        length: Tokens that a text may have, the end included.
        size: One more than the highest id.
        suffix: Id of the token that ends every text.
        padding: Id of the token that fills up a short text.
        added_tokens: Tokens beside the vocabulary, special ones excepted.
        backend: The tokenizer of the tokenizers library.
        prefix: Nothing begins a text.
        pads_left: Short texts are filled up at their end.
    """

    class_name: str
    length: int
    size: int
    suffix: tuple[int, ...]
    padding: int
    added_tokens: tuple[str, ...]
    backend: Backend
    prefix: tuple[int, ...] = ()
    pads_left: bool = False

    def encode(self, text: str) -> tuple[int, ...]:
        """Return the ids of a text without end and padding."""
        return tuple(self.backend.encode(text, add_special_tokens=False).ids)

    def with_tokens(self, tokens: Sequence[str]) -> T5Tokenizer:
        """Refuse further tokens: no textual inversion was published for T5.

        Raises:
            ConversionError: ``embedding.token``.
        """
        raise ConversionError(
            "embedding.token",
            f"The token {tokens[0]!r} cannot be added to {self.class_name}.",
            "Use an embedding that is made for this model's other text encoders.",
        )

    def expand(self, text: str) -> str:
        """Return the text as it is: no token stands for several vectors."""
        return text


def open_t5(files: TokenizerFiles, class_name: str) -> T5Tokenizer:
    """Open a T5 tokenizer.

    Raises:
        ConversionError: ``tokenizer.broken``; says what is wrong with which file.
    """
    added = read_added_tokens(files, _DEFAULTS)
    backend = _backend(files, added.tokens)
    end, padding = ids_of_roles(files, backend, added, "eos_token", "pad_token")
    return T5Tokenizer(
        class_name=class_name,
        length=files.length(files.config.get("model_max_length", _LENGTH), least=2, most=_LENGTH),
        size=max(backend.get_vocab(with_added_tokens=True).values()) + 1,
        suffix=(end,),
        padding=padding,
        added_tokens=tuple(token.content for token in added.tokens if not token.special),
        backend=backend,
    )


def _backend(files: TokenizerFiles, added: Sequence[AddedToken]) -> Backend:
    from tokenizers import Tokenizer, normalizers, pre_tokenizers
    from tokenizers.models import Unigram

    pieces, characters = _model(files)
    try:
        backend = Tokenizer(Unigram(pieces, unk_id=_UNKNOWN, byte_fallback=False))
        if characters:
            backend.normalizer = normalizers.Precompiled(characters)
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.WhitespaceSplit(),
                pre_tokenizers.Metaspace(replacement=_SPACE, prepend_scheme="always", split=True),
            ]
        )
        backend.add_tokens([*added, *_sentinels(files)])
    except Exception as error:  # the library raises nothing narrower
        raise files.broken(str(error)) from error
    backend.encode_special_tokens = files.config.get("split_special_tokens") is True
    return backend


def _model(files: TokenizerFiles) -> tuple[list[tuple[str, float]], bytes]:
    """Return the pieces with their scores, and sentencepiece's map of characters; empty for none."""
    if WHOLE not in files.content:
        return _sentencepiece(files)
    document = files.json(WHOLE)
    model = document.get("model")
    if not isinstance(model, dict) or model.get("type", "Unigram") != "Unigram":
        kind = model.get("type") if isinstance(model, dict) else None
        raise files.broken(f"{WHOLE} holds a model of the type {kind!r:.40}, T5's is Unigram")
    pieces: list[tuple[str, float]] = []
    vocabulary = model.get("vocab")
    for piece in vocabulary if isinstance(vocabulary, list) else []:
        if not (
            isinstance(piece, list)
            and len(piece) == 2
            and isinstance(piece[0], str)
            and type(piece[1]) in (int, float)
        ):
            raise files.broken(f"{piece!r:.80} in {WHOLE} is no piece with its score")
        pieces.append((piece[0], float(piece[1])))
    if len(pieces) <= _UNKNOWN:
        raise files.broken(f"{WHOLE} holds no vocabulary")
    return pieces, _characters(files, document.get("normalizer"))


def _sentencepiece(files: TokenizerFiles) -> tuple[list[tuple[str, float]], bytes]:
    """Read what a slow tokenizer of transformers 4 was saved as: the sentinel tokens are no pieces of it.

    Source: ``T5Converter.convert_from_spm`` of transformers, which puts them behind, the last first.
    """
    if SENTENCEPIECE not in files.content:
        raise files.broken(f"{WHOLE} and {SENTENCEPIECE} are missing")
    model = files.sentencepiece(SENTENCEPIECE)
    if not model.is_unigram:
        raise files.broken(f"{SENTENCEPIECE} holds no unigram model, as T5's is")
    if len(model.pieces) <= _UNKNOWN:
        raise files.broken(f"{SENTENCEPIECE} holds no vocabulary")
    sentinels = [(token, 0.0) for token in reversed(_sentinel_names(files))]
    return [*model.pieces, *sentinels], model.characters


def _characters(files: TokenizerFiles, normalizer: Any) -> bytes:
    """Find sentencepiece's map of characters among a file's normalizers; T5Tokenizer ignores all others."""
    inner = normalizer.get("normalizers") if isinstance(normalizer, dict) else None
    for each in inner if isinstance(inner, list) else [normalizer]:
        if not isinstance(each, dict) or each.get("type") != "Precompiled":
            continue
        text = each.get("precompiled_charsmap")
        if isinstance(text, str):
            try:
                return base64.b64decode(text, validate=True)
            except binascii.Error as error:
                raise files.broken(f"the map of characters in {WHOLE} is damaged") from error
    return b""


def _sentinels(files: TokenizerFiles) -> list[AddedToken]:
    """Return the sentinel tokens that the class adds where no file lists further special tokens."""
    from tokenizers import AddedToken

    listed = ("additional_special_tokens", "extra_special_tokens")
    known = {**files.json(SPECIAL_TOKENS), **files.config}
    if any(name in known for name in listed):
        return []
    return [AddedToken(token, special=True) for token in _sentinel_names(files)]


def _sentinel_names(files: TokenizerFiles) -> list[str]:
    count = files.config.get("extra_ids", _SENTINELS)
    if isinstance(count, bool) or not isinstance(count, int) or not 0 <= count <= 10_000:
        raise files.broken(f"its extra_ids is {count!r:.80}")
    return [f"<extra_id_{number}>" for number in range(count)]

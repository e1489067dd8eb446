"""CLIP's byte-pair tokenizer, as transformers 5.23's ``CLIPTokenizer`` makes it.

Source: Radford et al. 2021 (CLIP), ``simple_tokenizer.py``; the pieces are put together as in transformers'
``models/clip/tokenization_clip.py``, so the same text gives the same ids. A ``tokenizer.json`` gives the
vocabulary and the merges alone; how text is split is the class's, as there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from conversions.errors import ConversionError
from conversions.tokenizers.added_tokens import AddedTokens, read_added_tokens
from conversions.tokenizers.files import MERGES, VOCABULARY, WHOLE, TokenizerFiles

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend

_WORDS = r"""<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"""
_START, _END = "<|startoftext|>", "<|endoftext|>"
_DEFAULTS = {"bos_token": _START, "eos_token": _END, "unk_token": _END, "pad_token": _END}
# Position embeddings of every published CLIP text encoder.
CLIP_LENGTH = 77


@dataclass(frozen=True, kw_only=True)
class ClipTokenizer:
    """Text to the token ids of a CLIP text encoder; see ``conversions.tokenizers.Tokenizer``.

    Attributes:
        class_name: The class of transformers that gives the same ids.
        length: Tokens that a text may have, start and end included.
        size: One more than the highest id.
        start: Id of the token that begins every text.
        end: Id of the token that ends every text.
        padding: Id of the token that fills up a short text; Stable Diffusion 2.x and the second tokenizer
            of SDXL fill up with ``"!"``, id 0.
        added_tokens: Tokens beside the vocabulary, special ones excepted.
        backend: The tokenizer of the tokenizers library.
    """

    class_name: str
    length: int
    size: int
    start: int
    end: int
    padding: int
    added_tokens: tuple[str, ...]
    backend: Backend

    def encode(self, text: str) -> tuple[int, ...]:
        """Return the ids of a text without start, end and padding."""
        return tuple(self.backend.encode(text, add_special_tokens=False).ids)

    def with_tokens(self, tokens: Sequence[str]) -> ClipTokenizer:
        """Return the same tokenizer with further tokens, which get the next ids in their order.

        Source: ``PreTrainedTokenizerBase.add_tokens`` of transformers: the tokens are no special ones and are
        found in the normalised text.

        Raises:
            ConversionError: ``embedding.token``; one is known already.
        """
        from tokenizers import AddedToken, Tokenizer

        backend = Tokenizer.from_str(self.backend.to_str())
        for place, token in enumerate(tokens):
            if backend.token_to_id(token) is not None or not token.strip():
                raise ConversionError(
                    "embedding.token",
                    f"The token {token!r} cannot be added: the tokenizer knows it already.",
                    "Rename the file: its name is the token.",
                )
            backend.add_tokens([AddedToken(token, normalized=True, special=False)])
            assert backend.token_to_id(token) == self.size + place
        backend.encode_special_tokens = self.backend.encode_special_tokens
        return replace(
            self,
            backend=backend,
            size=self.size + len(tokens),
            added_tokens=(*self.added_tokens, *tokens),
        )

    def expand(self, text: str) -> str:
        """Write out the added tokens of a text that stand for several vectors.

        A textual inversion of several vectors is added as ``<cat>``, ``<cat>_1``, ``<cat>_2`` ...; a prompt
        names the first.
        Source: ``TextualInversionLoaderMixin.maybe_convert_prompt`` of diffusers 0.42.
        """
        added = set(self.added_tokens)
        several = [token for token in self.added_tokens if f"{token}_1" in added]
        if not several:
            return text
        for token in dict.fromkeys(self.backend.encode(text, add_special_tokens=False).tokens):
            if token in several:
                count = 1
                while f"{token}_{count}" in added:
                    count += 1
                text = text.replace(token, " ".join([token, *(f"{token}_{i}" for i in range(1, count))]))
        return text


def open_clip(files: TokenizerFiles, class_name: str) -> ClipTokenizer:
    """Open a CLIP tokenizer.

    Raises:
        ConversionError: ``tokenizer.broken``; says what is wrong with which file.
    """
    added = read_added_tokens(files, _DEFAULTS)
    backend = _backend(files, added)
    ids = {}
    for role in _DEFAULTS:
        number = backend.token_to_id(added.roles[role])
        if number is None:
            raise files.broken(f"it does not know its own {role} {added.roles[role]!r}")
        ids[role] = int(number)
    return ClipTokenizer(
        class_name=class_name,
        length=_length(files),
        size=max(backend.get_vocab(with_added_tokens=True).values()) + 1,
        start=ids["bos_token"],
        end=ids["eos_token"],
        padding=ids["pad_token"],
        added_tokens=tuple(token.content for token in added.tokens if not token.special),
        backend=backend,
    )


def _backend(files: TokenizerFiles, added: AddedTokens) -> Backend:
    from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers
    from tokenizers.models import BPE

    vocabulary, merges = _vocabulary(files)
    try:
        backend = Tokenizer(
            BPE(
                vocab=dict(vocabulary),
                merges=merges,
                continuing_subword_prefix="",
                end_of_word_suffix="</w>",
                fuse_unk=False,
                unk_token=added.roles["unk_token"],
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


def _vocabulary(files: TokenizerFiles) -> tuple[Mapping[str, int], list[tuple[str, str]]]:
    """Return the ids of all pieces, and the pairs that are merged, first ones first."""
    vocabulary: Any
    lines: Any
    if WHOLE in files.content:
        name, model = WHOLE, files.json(WHOLE).get("model")
        if not isinstance(model, dict) or model.get("type", "BPE") != "BPE":
            kind = model.get("type") if isinstance(model, dict) else None
            raise files.broken(f"{WHOLE} holds a model of the type {kind!r:.40}, CLIP's is BPE")
        vocabulary, lines = model.get("vocab"), model.get("merges")
    else:
        name, vocabulary = VOCABULARY, files.json(VOCABULARY)
        lines = [line for line in files.lines(MERGES) if line.strip() and not line.startswith("#version")]
    ids = vocabulary.values() if isinstance(vocabulary, dict) else ()
    if not ids or not all(type(number) is int and 0 <= number < 1 << 32 for number in ids):
        raise files.broken(f"{name} holds no vocabulary" if name in files.content else f"{name} is missing")
    merges = []
    for line in lines if isinstance(lines, list) else []:
        pair = line.rstrip("\r").split(" ") if isinstance(line, str) else line
        if not (isinstance(pair, list) and len(pair) == 2 and all(isinstance(part, str) for part in pair)):
            raise files.broken(f"{line!r:.80} among its merges is no pair")
        merges.append((pair[0], pair[1]))
    if not merges:
        raise files.broken("it has no merges")
    return vocabulary, merges


def _length(files: TokenizerFiles) -> int:
    """Return ``model_max_length``; a huge one means "without end", which CLIP's position embeddings deny."""
    given = files.config.get("model_max_length", files.config.get("max_len"))
    if given is None:
        return CLIP_LENGTH
    if isinstance(given, bool) or not isinstance(given, int | float) or not given >= 3:
        raise files.broken(f"its model_max_length is {given!r:.80}")
    return int(min(given, CLIP_LENGTH))

"""Byte-pair tokenizers: what CLIP's and Qwen's share.

Source: Sennrich et al. 2016, arXiv:1508.07909; Radford et al. 2019 (GPT-2), for bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from conversions.errors import ConversionError
from conversions.tokenizers.files import MERGES, VOCABULARY, WHOLE, TokenizerFiles

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend


@dataclass(frozen=True, kw_only=True)
class BytePairTokenizer:
    """Text to token ids by merged pairs of bytes; see ``conversions.tokenizers.Tokenizer``.

    Attributes:
        class_name: The class of transformers that gives the same ids.
        length: Tokens that a text may have, prefix and suffix included.
        size: One more than the highest id.
        prefix: Ids of the tokens that begin every text.
        suffix: Ids of the tokens that end every text.
        padding: Id of the token that fills up a short text; Stable Diffusion 2.x and the second tokenizer
            of SDXL fill up with ``"!"``, id 0.
        added_tokens: Tokens beside the vocabulary, special ones excepted.
        backend: The tokenizer of the tokenizers library.
        pads_left: Whether a short text is filled up at its beginning.
    """

    class_name: str
    length: int
    size: int
    prefix: tuple[int, ...]
    suffix: tuple[int, ...]
    padding: int
    added_tokens: tuple[str, ...]
    backend: Backend
    pads_left: bool = False

    def encode(self, text: str) -> tuple[int, ...]:
        """Return the ids of a text without prefix, suffix and padding."""
        return tuple(self.backend.encode(text, add_special_tokens=False).ids)

    def with_tokens(self, tokens: Sequence[str]) -> BytePairTokenizer:
        """Return the same tokenizer with further tokens, which get the next ids in their order.

        Source: ``PreTrainedTokenizerBase.add_tokens`` of transformers: the tokens are no special ones and are
        found in the normalised text.

        Raises:
            ConversionError: ``embedding.token``; one is known already, or the vocabulary has gaps.
        """
        from tokenizers import AddedToken, Tokenizer

        backend = Tokenizer.from_str(self.backend.to_str())
        for place, token in enumerate(tokens):
            if backend.token_to_id(token) is not None or not token.strip():
                raise ConversionError(
                    "embedding.token",
                    f"The token {token!r} cannot be added: the tokenizer knows it already.",
                    "If the model has learned this file already, leave it out: prompts can use the token. "
                    "Else rename the file: its name is the token.",
                )
            backend.add_tokens([AddedToken(token, normalized=True, special=False)])
            if backend.token_to_id(token) != self.size + place:
                raise ConversionError(
                    "embedding.token",
                    f"The token {token!r} cannot be added: the ids of the tokenizer's vocabulary have a gap, "
                    "so that a new token would get the id of another one.",
                    "Download or copy the tokenizer's files again; pieces of its vocabulary are missing.",
                )
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


def read_vocabulary(files: TokenizerFiles) -> tuple[Mapping[str, int], list[tuple[str, str]]]:
    """Return the ids of all pieces, and the pairs that are merged, first ones first.

    Raises:
        ConversionError: ``tokenizer.broken``; says what is wrong with which file.
    """
    vocabulary: Any
    lines: Any
    if WHOLE in files.content:
        name, model = WHOLE, files.json(WHOLE).get("model")
        if not isinstance(model, dict) or model.get("type", "BPE") != "BPE":
            kind = model.get("type") if isinstance(model, dict) else None
            raise files.broken(f"{WHOLE} holds a model of the type {kind!r:.40}, where BPE is wanted")
        vocabulary, lines = model.get("vocab"), model.get("merges")
    else:
        name, vocabulary = VOCABULARY, files.json(VOCABULARY)
        lines = [line.rstrip("\r") for line in files.lines(MERGES)]
        lines = [line for line in lines if line.strip() and not line.startswith("#version")]
    ids = vocabulary.values() if isinstance(vocabulary, dict) else ()
    if not ids or not all(type(number) is int and 0 <= number < 1 << 32 for number in ids):
        raise files.broken(f"{name} holds no vocabulary" if name in files.content else f"{name} is missing")
    merges = []
    for line in lines if isinstance(lines, list) else []:
        pair = line.split(" ") if isinstance(line, str) else line
        if not (isinstance(pair, list) and len(pair) == 2 and all(isinstance(part, str) for part in pair)):
            raise files.broken(f"{line!r:.80} among its merges is no pair")
        merges.append((pair[0], pair[1]))
    if not merges:
        raise files.broken("it has no merges")
    return vocabulary, merges


def size_of(backend: Backend) -> int:
    """Return one more than the highest id."""
    return max(backend.get_vocab(with_added_tokens=True).values()) + 1

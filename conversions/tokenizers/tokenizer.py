"""What every tokenizer does, whatever its class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Tokenizer(Protocol):
    """Text to token ids."""

    @property
    def class_name(self) -> str:
        """The class of transformers that gives the same ids."""
        ...

    @property
    def length(self) -> int:
        """Tokens that a text may have, start and end included; ``model_max_length`` of the configuration."""
        ...

    @property
    def size(self) -> int:
        """One more than the highest id: rows that the text encoder's embedding table needs."""
        ...

    @property
    def prefix(self) -> tuple[int, ...]:
        """Ids of the tokens that begin every text."""
        ...

    @property
    def suffix(self) -> tuple[int, ...]:
        """Ids of the tokens that end every text."""
        ...

    @property
    def pads_left(self) -> bool:
        """Whether a short text is filled up at its beginning."""
        ...

    @property
    def padding(self) -> int:
        """Id of the token that fills up a short text."""
        ...

    @property
    def added_tokens(self) -> tuple[str, ...]:
        """Tokens that were added to the vocabulary, such as those of textual inversion."""
        ...

    def encode(self, text: str) -> tuple[int, ...]:
        """Return the ids of a text without prefix, suffix and padding."""
        ...

    def with_tokens(self, tokens: Sequence[str]) -> Tokenizer:
        """Return the same tokenizer with further tokens, which get the next ids in their order."""
        ...

    def expand(self, text: str) -> str:
        """Write out the added tokens of a text that stand for several vectors."""
        ...

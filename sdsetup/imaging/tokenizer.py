"""The tokenizer of a package, for prompts."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from conversions.errors import ConversionError
from conversions.tokenizers import Tokenizer, open_tokenizer
from conversions.tokenizers.clip import CLIP_LENGTH
from sdsetup.errors import SetupError


@dataclass(frozen=True, kw_only=True)
class PromptTokenizer:
    """Text to token ids.

    Attributes:
        folder: The package's ``tokenizer`` folder.
        length: Tokens that the text encoder takes at once, start and end included.
        tokens: Tokens that are added to those of the files.
    """

    folder: Path
    length: int = CLIP_LENGTH
    tokens: tuple[str, ...] = ()

    @property
    def prefix(self) -> tuple[int, ...]:
        """Ids of the tokens that begin every text."""
        return self._tokenizer.prefix

    @property
    def suffix(self) -> tuple[int, ...]:
        """Ids of the tokens that end every text."""
        return self._tokenizer.suffix

    @property
    def pads_left(self) -> bool:
        """Whether a short text is filled up at its beginning."""
        return self._tokenizer.pads_left

    @property
    def padding(self) -> int:
        """Id of the token that fills a short text up."""
        return self._tokenizer.padding

    def encode(self, text: str) -> tuple[int, ...]:
        """Return the text's ids without start, end and padding."""
        return self._tokenizer.encode(text)

    def expand(self, text: str) -> str:
        """Write out the added tokens of a text that stand for several vectors."""
        return self._tokenizer.expand(text)

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        try:
            opened = open_tokenizer(self.folder)
            return opened.with_tokens(self.tokens) if self.tokens else opened
        except ConversionError as error:
            raise SetupError(error.code, error.message, "Convert the checkpoint again.") from error

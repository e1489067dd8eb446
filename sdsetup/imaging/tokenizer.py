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
class ClipTokenizer:
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
    def start(self) -> int:
        """Id of the token that begins every text."""
        return self._tokenizer.start

    @property
    def end(self) -> int:
        """Id of the token that ends every text."""
        return self._tokenizer.end

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

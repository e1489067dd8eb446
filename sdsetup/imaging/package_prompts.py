"""Prompts as a package's tokenizers read them, for its recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from conversions.events import Listener, ignore
from conversions.package.layout import Package
from conversions.recipe import EncodedPrompt, PaddedTokens
from sdsetup.imaging import prompts
from sdsetup.imaging.schedulers import Floats
from sdsetup.imaging.tokenizer import PromptTokenizer


@dataclass(frozen=True, kw_only=True)
class PackagePrompts:
    """Encodes prompts with a package's tokenizers, each opened once.

    Attributes:
        package: Where the tokenizers are.
        length: Tokens that a text encoder takes at once.
        tokens: Tokens that are added to a tokenizer's own, by its folder.
        listener: Told of prompts that are longer than what a model reads.
    """

    package: Package
    length: int
    tokens: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    listener: Listener = ignore
    _opened: dict[str, PromptTokenizer] = field(default_factory=dict, init=False, repr=False, compare=False)

    def encode(self, prompt: str, tokenizer: str, *, at_least: int = 1, length: int = 0) -> EncodedPrompt:
        """Split a prompt into chunks of tokens; see ``conversions.recipe.PromptEncoder``."""
        encoded = prompts.encode(prompt, self._tokenizer(tokenizer), at_least=at_least, length=length)
        return EncodedPrompt(tokens=encoded.tokens, weights=encoded.weights)

    def tokenize(
        self,
        text: str,
        tokenizer: str,
        *,
        length: int,
        multiple: int = 0,
        before: str = "",
        after: str = "",
    ) -> PaddedTokens:
        """Return a text's tokens, cut or filled up; see ``conversions.recipe.PromptEncoder``."""
        opened = self._tokenizer(tokenizer)
        return prompts.tokenize(
            text,
            opened,
            length=length,
            multiple=multiple,
            before=before,
            after=after,
            listener=self.listener,
        )

    def embed(self, hidden: Floats, encoded: EncodedPrompt) -> Floats:
        """Join the hidden states of a prompt's chunks, with its weights."""
        return prompts.embed(hidden, encoded.weights)

    def _tokenizer(self, name: str) -> PromptTokenizer:
        if name not in self._opened:
            self._opened[name] = PromptTokenizer(
                folder=self.package.folder / name, length=self.length, tokens=self.tokens.get(name, ())
            )
        return self._opened[name]

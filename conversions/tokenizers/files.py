"""The files of a tokenizer's folder, from a checkpoint or a package."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from conversions.checkpoint.json_file import parse_object, read_bytes
from conversions.checkpoint.lfs_pointer import is_pointer, pointer_error
from conversions.checkpoint.storage import Storage
from conversions.errors import ConversionError
from conversions.tokenizers.sentencepiece import SentencePieceModel, read_sentencepiece

CONFIG = "tokenizer_config.json"
SPECIAL_TOKENS = "special_tokens_map.json"
ADDED_TOKENS = "added_tokens.json"
WHOLE = "tokenizer.json"
VOCABULARY = "vocab.json"
MERGES = "merges.txt"
SENTENCEPIECE = "spiece.model"
SENTENCEPIECE_OF_GEMMA = "tokenizer.model"
_READ = (
    CONFIG,
    SPECIAL_TOKENS,
    ADDED_TOKENS,
    WHOLE,
    VOCABULARY,
    MERGES,
    SENTENCEPIECE,
    SENTENCEPIECE_OF_GEMMA,
)


@dataclass(frozen=True, kw_only=True)
class TokenizerFiles:
    """A tokenizer's folder.

    Attributes:
        label: What to call the folder in messages.
        names: The names of all its files, those that are not read included.
        content: What the files that describe the tokenizer hold, by name.
    """

    label: str
    names: frozenset[str]
    content: Mapping[str, bytes]

    def json(self, name: str) -> dict[str, Any]:
        """Return a file's JSON object; an empty one when there is no such file.

        Raises:
            ConversionError: It cannot be read.
        """
        if name not in self.content:
            return {}
        return parse_object(self.content[name], f"{self.label}/{name}")

    @cached_property
    def config(self) -> dict[str, Any]:
        """``tokenizer_config.json``."""
        return self.json(CONFIG)

    def lines(self, name: str) -> list[str]:
        """Return the lines of a text file.

        Raises:
            ConversionError: It is missing or is no UTF-8 text.
        """
        label = f"{self.label}/{name}"
        if name not in self.content:
            raise self.broken(f"{label} is missing")
        if is_pointer(self.content[name]):
            raise pointer_error(label, self.content[name])
        try:
            return self.content[name].decode("utf-8-sig").split("\n")
        except UnicodeDecodeError as error:
            raise self.broken(f"{label} is not UTF-8 text") from error

    def length(self, given: Any, *, least: int, most: int) -> int:
        """Return the tokens that a text may have.

        Args:
            given: ``model_max_length``; a huge one means "without end".
            least: With fewer, no text can be read.
            most: As many as the model has places for.

        Raises:
            ConversionError: ``tokenizer.broken``; it is no such number.
        """
        if isinstance(given, bool) or not isinstance(given, int | float) or not given >= least:
            raise self.broken(f"its model_max_length is {given!r:.80}")
        return int(min(given, most))

    def pads_left(self, usual: str) -> bool:
        """Say whether padding stands before a text.

        Args:
            usual: The side where the configuration names none.

        Raises:
            ConversionError: ``tokenizer.broken``: what it names is no side.
        """
        side = self.config.get("padding_side", usual)
        if side not in ("left", "right"):
            raise self.broken(f"its padding_side is {side!r:.80}")
        return bool(side == "left")

    def sentencepiece(self, name: str) -> SentencePieceModel:
        """Return what a sentencepiece file says.

        Raises:
            ConversionError: It cannot be read.
        """
        content = self.content[name]
        if is_pointer(content):
            raise pointer_error(f"{self.label}/{name}", content)
        try:
            return read_sentencepiece(content)
        except ValueError as error:
            raise self.broken(f"{name} is damaged: {error}") from error

    def broken(self, reason: str) -> ConversionError:
        """Return the error for a tokenizer that cannot be used."""
        return ConversionError(
            "tokenizer.broken",
            f"The tokenizer in {self.label} cannot be used: {reason}.",
            "Download or copy the tokenizer's files again.",
        )


def read_files(folder: Path) -> TokenizerFiles:
    """Read a tokenizer's files from a folder.

    Raises:
        ConversionError: ``tokenizer.missing``, or a file cannot be read.
    """
    names = frozenset(path.name for path in folder.iterdir()) if folder.is_dir() else frozenset()
    content = {name: read_bytes(folder / name) for name in _READ if name in names}
    return _checked(TokenizerFiles(label=str(folder), names=names, content=content))


def read_files_of(storage: Storage, component: str) -> TokenizerFiles:
    """Read a tokenizer's files from a checkpoint, wherever it is.

    Args:
        storage: The checkpoint's files.
        component: The tokenizer's folder in it, for example ``"tokenizer_2"``.

    Raises:
        ConversionError: ``tokenizer.missing``, or a file cannot be read.
    """
    prefix = f"{component}/"
    names = frozenset(name.removeprefix(prefix) for name in storage.names() if name.startswith(prefix))
    content = {name: storage.read(prefix + name) for name in _READ if name in names}
    return _checked(TokenizerFiles(label=f"{storage.label}/{component}", names=names, content=content))


def _checked(files: TokenizerFiles) -> TokenizerFiles:
    if not files.names:
        raise ConversionError(
            "tokenizer.missing",
            f"There is no tokenizer in {files.label}: without it no prompt can be read.",
            "Download or copy the checkpoint again; this folder is part of it.",
        )
    return files

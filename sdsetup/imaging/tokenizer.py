"""CLIP's byte-pair tokenizer from a package's files, without transformers in the process.

Source: Radford et al. 2021 (CLIP), ``simple_tokenizer.py``; the pieces are put together as in
transformers 5, ``models/clip/tokenization_clip.py``, so the same text gives the same numbers.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdsetup.errors import SetupError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_WORDS = r"""<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"""
_START, _END = "<|startoftext|>", "<|endoftext|>"
# Position embeddings of every published CLIP text encoder.
_CLIP_LENGTH = 77


@dataclass(frozen=True, kw_only=True)
class ClipTokenizer:
    """Text to token numbers.

    Attributes:
        folder: The package's ``tokenizer`` folder.
        length: Tokens that the text encoder takes at once, start and end included.
    """

    folder: Path
    length: int = _CLIP_LENGTH

    @property
    def start(self) -> int:
        """Number of the token that begins every text."""
        return self._number("bos_token", _START)

    @property
    def end(self) -> int:
        """Number of the token that ends every text."""
        return self._number("eos_token", _END)

    @property
    def padding(self) -> int:
        """Number of the token that fills a short text up."""
        return self._number("pad_token", _END)

    def encode(self, text: str) -> tuple[int, ...]:
        """Return the text's tokens without start, end and padding."""
        return tuple(self._backend.encode(text, add_special_tokens=False).ids)

    def _number(self, role: str, default: str) -> int:
        content = self._special(role, default)["content"]
        number = self._backend.token_to_id(content)
        if number is None:
            raise SetupError(
                "tokenizer.broken",
                f"the tokenizer in {self.folder} does not know its own {role} {content!r}.",
                "convert the checkpoint again.",
            )
        return int(number)

    def _special(self, role: str, default: str) -> dict[str, Any]:
        """Return how the configuration describes a special token."""
        given = self._config.get(role, default)
        described = given if isinstance(given, dict) else {"content": given}
        fields = ("content", "single_word", "lstrip", "rstrip", "normalized")
        return {name: described[name] for name in fields if name in described}

    @cached_property
    def _config(self) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        for name in ("special_tokens_map.json", "tokenizer_config.json"):
            if (path := self.folder / name).is_file():
                merged |= _read_json(path)
        return merged

    @cached_property
    def _backend(self) -> Tokenizer:
        from tokenizers import AddedToken, Regex, Tokenizer, normalizers, pre_tokenizers
        from tokenizers.models import BPE

        vocabulary, merges = self._vocabulary()
        try:
            backend = Tokenizer(
                BPE(
                    vocab=vocabulary,
                    merges=[(first, second) for first, second in merges],
                    continuing_subword_prefix="",
                    end_of_word_suffix="</w>",
                    fuse_unk=False,
                    unk_token=self._special("unk_token", _END)["content"],
                )
            )
        except Exception as error:  # the library raises nothing narrower
            raise SetupError(
                "tokenizer.broken",
                f"the tokenizer in {self.folder} cannot be used: {error}.",
                "convert the checkpoint again.",
            ) from error
        backend.normalizer = normalizers.Sequence(
            [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
        )
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False),
            ]
        )
        roles = (("bos_token", _START), ("eos_token", _END), ("unk_token", _END), ("pad_token", _END))
        backend.add_special_tokens(
            [AddedToken(**{"normalized": False} | self._special(role, default)) for role, default in roles]
        )
        return backend

    def _vocabulary(self) -> tuple[dict[str, int], list[list[str]]]:
        if (whole := self.folder / "tokenizer.json").is_file():
            model = _read_json(whole).get("model", {})
            merges = [m.split(" ") if isinstance(m, str) else m for m in model.get("merges", [])]
            vocabulary = model.get("vocab", {})
        else:
            lines = _read_text(self.folder / "merges.txt").split("\n")
            merges = [line.split(" ") for line in lines if line and not line.startswith("#version")]
            vocabulary = _read_json(self.folder / "vocab.json")
        return vocabulary, merges


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SetupError(
            "package.file",
            f"{path} cannot be read: {error}.",
            "convert the checkpoint again.",
        ) from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        document: dict[str, Any] = json.loads(_read_text(path))
    except json.JSONDecodeError as error:
        raise SetupError(
            "package.file", f"{path} is not valid JSON: {error}.", "convert the checkpoint again."
        ) from error
    return document

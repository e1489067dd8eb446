"""Read textual inversion: vectors that a text encoder's table of tokens gets in addition.

Source: the forms that AUTOMATIC1111's web interface (``emb_params``), diffusers (``learned_embeds``, the
token as the only key) and trainers for SDXL (``clip_l`` and ``clip_g``) write as safetensors.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from conversions.checkpoint.safetensors_header import read_header
from conversions.checkpoint.storage import Folder
from conversions.checkpoint.wrong_path import not_a_file
from conversions.errors import ConversionError
from conversions.weights.kernels import to_float32
from conversions.weights.read_numbers import read_numbers

if TYPE_CHECKING:
    from conversions.family import Family
    from conversions.weights.lora.module_names import AdaptedComponent

# Keys that name a form, not a token.
_FORMS = frozenset({"emb_params", "clip_l", "clip_g", "*", "string_to_param.*"})
# More than any published embedding has; a prompt holds 75 tokens at once.
_MOST_VECTORS = 512


@dataclass(frozen=True, kw_only=True)
class EmbeddingFile:
    """A file of textual inversion.

    Attributes:
        path: The file.
        sha256: Its hash.
        token: What a prompt calls it.
        tables: Vectors, float32 ``[vectors, width]``, one table for each text encoder, by width.
    """

    path: Path
    sha256: str
    token: str
    tables: dict[int, npt.NDArray[np.float32]] = field(repr=False)

    @property
    def tokens(self) -> tuple[str, ...]:
        """A token for each vector: ``cat``, ``cat_1``, ``cat_2`` ...

        Source: ``TextualInversionLoaderMixin._extend_tokens_and_embeddings`` of diffusers 0.42.
        """
        count = len(next(iter(self.tables.values())))
        return (self.token, *(f"{self.token}_{place}" for place in range(1, count)))


def read_embeddings(path: Path) -> EmbeddingFile:
    """Read a file of textual inversion whole: it is small.

    Raises:
        ConversionError: ``embedding.missing``, ``embedding.format``, or the file is damaged.
    """
    if not path.is_file():
        message, hint = not_a_file(path, "a textual inversion")
        raise ConversionError("embedding.missing", message, hint)
    if path.suffix.casefold() in (".pt", ".pth", ".bin", ".ckpt"):
        raise ConversionError(
            "embedding.format",
            f"{path} is a pickle, a format that can carry programs; embeddings are read as safetensors.",
            "Look for the same embedding as a .safetensors file.",
        )
    tensors = read_header(Folder(path.parent), path.name)
    named = [name for name in tensors if name not in _FORMS]
    if not tensors or len(named) > 1 or (named and len(tensors) > 1):
        shown = ", ".join(list(tensors)[:4]) or "nothing"
        raise _unusable(path, f"it is no textual inversion of a known form; it holds {shown}")
    read = read_numbers({path.name: path})
    tables: dict[int, npt.NDArray[np.float32]] = {}
    for tensor in tensors.values():
        if len(tensor.shape) not in (1, 2) or 0 in tensor.shape:
            raise _unusable(path, f"its {tensor.name} has the shape {list(tensor.shape)}")
        rows, width = tensor.shape if len(tensor.shape) == 2 else (1, *tensor.shape)
        if rows > _MOST_VECTORS:
            raise _unusable(path, f"its {tensor.name} has {rows} vectors, more than {_MOST_VECTORS}")
        table = to_float32(read(tensor, 0, rows * width)).reshape(rows, width)
        if not np.isfinite(table).all():
            raise _unusable(path, f"its {tensor.name} holds NaN or infinity")
        if width in tables:
            raise _unusable(path, f"it has two tables of the width {width}")
        tables[width] = table
    if len({len(table) for table in tables.values()}) > 1:
        raise _unusable(path, "its tables have different numbers of vectors")
    token = named[0] if named else path.stem
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return EmbeddingFile(path=path, sha256=sha256, token=token, tables=tables)


def demand_encoders(family: Family, components: Collection[str]) -> list[AdaptedComponent]:
    """Return the text encoders of a model whose tables of tokens can be extended.

    Args:
        family: What the model is.
        components: What it has.

    Raises:
        ConversionError: ``embedding.family``; it has none.
    """
    found = [each for each in family.adapted if each.tokenizer and each.component in components]
    if not found:
        raise ConversionError(
            "embedding.family",
            f"Textual inversion cannot be used with {family.title} yet.",
            "Leave the embedding out.",
        )
    return found


def table_for(embedding: EmbeddingFile, widths: Sequence[int]) -> dict[int, npt.NDArray[np.float32]]:
    """Return the tables of an embedding for text encoders of some widths.

    Raises:
        ConversionError: ``embedding.width``; it has no table for one of them, or others.
    """
    if set(embedding.tables) != set(widths):
        has, wants = (" and ".join(map(str, sorted(each))) for each in (embedding.tables, set(widths)))
        raise ConversionError(
            "embedding.width",
            f"{embedding.path} has vectors of the width {has}; this model's text encoders want {wants}.",
            "Use an embedding that was made for this model.",
        )
    return embedding.tables


def _unusable(path: Path, reason: str) -> ConversionError:
    return ConversionError("embedding.format", f"{path} cannot be used: {reason}.", "Use another file.")

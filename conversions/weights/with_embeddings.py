"""A checkpoint that has learned the tokens of textual inversion: rows of a table, words of a tokenizer."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from conversions.checkpoint.folder import Checkpoint, Component, component_tensors
from conversions.checkpoint.layered import Layered, Place, all_of
from conversions.checkpoint.memory import Memory
from conversions.checkpoint.safetensors_header import read_header
from conversions.checkpoint.storage import Folder
from conversions.errors import ConversionError
from conversions.tokenizers.files import ADDED_TOKENS, CONFIG, WHOLE, TokenizerFiles, read_files_of
from conversions.tokenizers.registry import open_tokenizer_of
from conversions.weights.expression import Concat, Expression, Reshape, Rows, Stored, Tensors
from conversions.weights.lora.module_names import AdaptedComponent
from conversions.weights.textual_inversion import demand_encoders, read_embeddings, table_for

_SIZE = "vocab_size"


@dataclass(frozen=True, kw_only=True)
class LearnedEmbedding:
    """A textual inversion that is part of a model.

    Attributes:
        name: Its file's name.
        token: What prompts call it.
        vectors: How many rows it has.
        sha256: Hash of its file.
    """

    name: str
    token: str
    vectors: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class AddRows:
    """Adds the rows of textual inversion to a text encoder's table of tokens.

    Attributes:
        table: The end of the table's name.
        first: Place of the first new row: the id of the first new token.
        rows: The rows, as expressions ``[vectors, width]``.
        learned: What they are.
    """

    table: str
    first: int
    rows: tuple[Expression, ...]
    learned: tuple[LearnedEmbedding, ...]

    def __call__(self, tensors: Tensors) -> Tensors:
        """Return the weights with the longer table."""
        name = _table_of(tensors, self.table)
        known = tensors[name]
        kept = Rows(of=known, first=0, last=self.first)
        return {**tensors, name: Concat(parts=(kept, *self.rows))}


def with_embeddings(checkpoint: Checkpoint, paths: Sequence[Path]) -> Checkpoint:
    """Let a checkpoint know the tokens of textual inversion.

    Each vector is a token of its own, as ``load_textual_inversion`` of diffusers 0.42 has it: tokenizers get
    the tokens, tables their rows, configurations the new size.

    Args:
        checkpoint: Its weights are safetensors.
        paths: The files, in order.

    Raises:
        ConversionError: A file cannot be read or does not fit, a token is known already, or the family's text
            encoders have no table that can be extended.
    """
    if not paths:
        return checkpoint
    encoders = demand_encoders(checkpoint.family, checkpoint.components)
    files = [read_embeddings(path) for path in paths]
    tokens = tuple(token for file in files for token in file.tokens)
    learned = tuple(
        LearnedEmbedding(name=file.path.name, token=file.token, vectors=len(file.tokens), sha256=file.sha256)
        for file in files
    )
    places = all_of(checkpoint.storage)
    names = []
    for number, path in enumerate(paths, start=1):
        names.append(f"textual-inversion/{number}-{path.name}")
        places[names[-1]] = Place(storage=Folder(path.parent), name=path.name)
    tensors = {
        each.component: component_tensors(checkpoint.storage, checkpoint.components[each.component])
        for each in encoders
    }
    widths = {
        each.component: tensors[each.component][_table_of(tensors[each.component], each.embedding)].shape[1]
        for each in encoders
    }
    components = dict(checkpoint.components)
    for file in files:
        table_for(file, tuple(widths.values()))
    for each in encoders:
        width = widths[each.component]
        rows = tuple(_rows(path, name, width) for path, name in zip(paths, names, strict=True))
        components[each.component] = _extended(
            checkpoint, each, tokens, AddRows(table=each.embedding, first=0, rows=rows, learned=learned)
        )
        places |= _tokenizer_places(checkpoint, each.tokenizer, tokens)
    return replace(checkpoint, storage=Layered(checkpoint.storage.label, places), components=components)


def learned_embeddings(transforms: Iterable[object]) -> tuple[LearnedEmbedding, ...]:
    """Return the textual inversion among the transforms of a model's components."""
    return next((each.learned for each in transforms if isinstance(each, AddRows)), ())


def _extended(
    checkpoint: Checkpoint, encoder: AdaptedComponent, tokens: Sequence[str], added: AddRows
) -> Component:
    """Return a text encoder with the longer table; the tokenizer says where the new rows begin."""
    component = checkpoint.components[encoder.component]
    tokenizer = open_tokenizer_of(checkpoint.storage, encoder.tokenizer)
    tokenizer.with_tokens(tokens)  # refuses a token that is known
    tensors = component_tensors(checkpoint.storage, component)
    size = tensors[_table_of(tensors, encoder.embedding)].shape[0]
    if tokenizer.size > size:
        raise ConversionError(
            "embedding.table",
            f"The tokenizer {encoder.tokenizer!r} knows {tokenizer.size:,} tokens, and {encoder.component!r} "
            f"has {size:,} rows: they do not belong together.",
            "Download the checkpoint again.",
        )
    return replace(
        component,
        config={**component.config, _SIZE: tokenizer.size + len(tokens)},
        transforms=(*component.transforms, replace(added, first=tokenizer.size)),
    )


def _rows(path: Path, name: str, width: int) -> Expression:
    found = next(
        each for each in read_header(Folder(path.parent), path.name).values() if each.shape[-1] == width
    )
    stored = Stored(tensor=replace(found, file=name))
    return stored if len(stored.shape) == 2 else Reshape(of=stored, to=(1, width))


def _table_of(tensors: Tensors, end: str) -> str:
    name = next((each for each in tensors if each.endswith(end)), None)
    if name is None:
        raise ConversionError(
            "embedding.table",
            f"There is no tensor {end} among the weights.",
            "Download the checkpoint again.",
        )
    return name


def _tokenizer_places(checkpoint: Checkpoint, folder: str, tokens: Sequence[str]) -> Mapping[str, Place]:
    """Return the files of a tokenizer that knows further tokens, in all forms that it has.

    Source: ``read_added_tokens``: ``added_tokens_decoder`` counts where there is one, else
    ``added_tokens.json``; libraries that read ``tokenizer.json`` alone find the tokens there.
    """
    files = read_files_of(checkpoint.storage, folder)
    first = open_tokenizer_of(checkpoint.storage, folder).size
    ids = {token: first + place for place, token in enumerate(tokens)}
    changed: dict[str, Mapping[str, Any]] = {}
    if "added_tokens_decoder" in files.config:
        known = files.config["added_tokens_decoder"]
        changed[CONFIG] = {
            **files.config,
            "added_tokens_decoder": {**known, **{str(ids[token]): _described(token) for token in tokens}},
        }
    if "added_tokens_decoder" not in files.config or ADDED_TOKENS in files.names:
        changed[ADDED_TOKENS] = {**files.json(ADDED_TOKENS), **ids}
    if WHOLE in files.names:
        changed[WHOLE] = _whole_with(files, ids)
    memory = Memory(
        f"{checkpoint.storage.label} with learned tokens",
        {
            f"{folder}/{name}": json.dumps(content, indent=2, ensure_ascii=False).encode()
            for name, content in changed.items()
        },
    )
    return all_of(memory)


def _whole_with(files: TokenizerFiles, ids: Mapping[str, int]) -> Mapping[str, Any]:
    whole = files.json(WHOLE)
    more = [{"id": number, **_described(token)} for token, number in ids.items()]
    return {**whole, "added_tokens": [*(whole.get("added_tokens") or ()), *more]}


def _described(token: str) -> dict[str, Any]:
    """Describe a token as ``add_tokens`` of transformers does for a plain text."""
    flags = dict.fromkeys(("lstrip", "rstrip", "single_word", "special"), False)
    return {"content": token, "normalized": True, **flags}

"""Textual inversion added to a package's text encoders and tokenizers for one run; the package stays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from conversions.errors import ConversionError
from conversions.package.layout import Package
from conversions.tokenizers import open_tokenizer
from conversions.weights.graph_weights import graph_weights
from conversions.weights.read_numbers import read_numbers
from conversions.weights.textual_inversion import demand_encoders, read_embeddings, table_for
from sdsetup.error_hints import hint_for
from sdsetup.errors import SetupError

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True, kw_only=True)
class AppliedEmbedding:
    """A textual inversion that an image is made with.

    Attributes:
        path: Its file.
        token: What prompts call it.
        sha256: Hash of the file.
    """

    path: str
    token: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class AddedRows:
    """Rows that a text encoder's table of tokens gets.

    Attributes:
        table: The end of the table's name among the initializers.
        first: Place of the first of them: the id of the first token that is added.
        vectors: float32 ``[rows, width]``.
    """

    table: str
    first: int
    vectors: npt.NDArray[np.float32] = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class PackageEmbeddings:
    """Textual inversion for a package; a process can be given it.

    Attributes:
        applied: The embeddings, in order.
        tokens: The tokens that each tokenizer gets, by its folder.
        rows: The rows that each text encoder gets, by component.
    """

    applied: tuple[AppliedEmbedding, ...] = ()
    tokens: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    rows: Mapping[str, AddedRows] = field(default_factory=dict, repr=False)

    def extended_weights(self, package: Package, submodel: str) -> dict[str, npt.NDArray[Any]]:
        """Return the table of tokens of a submodel with its new rows, by initializer; nothing for others."""
        component = next(each.component for each in package.submodels if each.name == submodel)
        if component not in self.rows:
            return {}
        added = self.rows[component]
        name, table = _table(package, submodel, added.table)
        size = max(len(table), added.first + len(added.vectors))
        extended = np.zeros((size, table.shape[1]), table.dtype)
        extended[: len(table)] = table
        extended[added.first : added.first + len(added.vectors)] = added.vectors
        return {name: extended}


def open_embeddings(package: Package, paths: Sequence[Path]) -> PackageEmbeddings:
    """Read textual inversion and see that it fits a package.

    Args:
        package: To make images with.
        paths: The files, in order.

    Raises:
        SetupError: A file cannot be read, does not fit, or its token is known already.
    """
    if not paths:
        return PackageEmbeddings()
    try:
        encoders = demand_encoders(package.family, {each.component for each in package.submodels})
        files = [read_embeddings(path) for path in paths]
        tokens = tuple(token for file in files for token in file.tokens)
        tables = {}
        for encoder in encoders:
            submodel = next(each.name for each in package.submodels if each.component == encoder.component)
            tables[encoder.component] = _table(package, submodel, encoder.embedding)[1].shape[1]
        rows = {}
        for encoder in encoders:
            tokenizer = open_tokenizer(package.folder / encoder.tokenizer)
            vectors = [table_for(file, tuple(tables.values()))[tables[encoder.component]] for file in files]
            first = tokenizer.size
            tokenizer.with_tokens(tokens)
            rows[encoder.component] = AddedRows(
                table=encoder.embedding, first=first, vectors=np.concatenate(vectors)
            )
    except ConversionError as error:
        raise SetupError(error.code, error.message, hint_for(error)) from error
    return PackageEmbeddings(
        applied=tuple(
            AppliedEmbedding(path=str(file.path.absolute()), token=file.token, sha256=file.sha256)
            for file in files
        ),
        tokens={encoder.tokenizer: tokens for encoder in encoders},
        rows=rows,
    )


def resize(model: ir.Model, *, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Give initializers the shapes of the arrays that a session gets instead of their data, in place."""
    import onnx_ir as ir

    for name, shape in shapes.items():
        value = model.graph.initializers.get(name)
        if value is None or value.shape is None or tuple(value.shape.numpy()) == shape:
            continue
        tensor = value.const_value
        assert isinstance(tensor, ir.ExternalTensor)
        value.const_value = ir.ExternalTensor(
            tensor.location,
            tensor.offset,
            int(np.prod(shape)) * int(tensor.dtype.itemsize),
            tensor.dtype,
            shape=ir.Shape(shape),
            name=name,
            base_dir=tensor.base_dir,
        )
        value.shape = ir.Shape(shape)


def _table(package: Package, submodel: str, end: str) -> tuple[str, npt.NDArray[Any]]:
    """Return the name and the numbers of a text encoder's table of tokens."""
    for name, weight in graph_weights(package.graph(submodel)).items():
        if name.endswith(end):
            tensor = weight.tensor
            read = read_numbers({tensor.file: package.graph(submodel).parent / tensor.file})
            return name, read(tensor, 0, weight.expression.size).reshape(tensor.shape)
    raise SetupError(
        "embedding.table",
        f"{submodel} of {package.folder} has no table of tokens that can be extended.",
        "convert the checkpoint again.",
    )

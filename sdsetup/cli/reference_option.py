"""The option ``--reference``: what a package's numbers are compared with."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

if TYPE_CHECKING:
    from conversions.verification.references import ReferenceKind


class ReferenceName(StrEnum):
    """What numbers are compared with."""

    PYTORCH = "pytorch"
    GRAPH = "graph"


ReferenceOption: TypeAlias = Annotated[
    ReferenceName | None,
    typer.Option(
        help="What numbers are compared with: PyTorch, or a float32 evaluation of the same graph. "
        "[default: pytorch where it is installed]"
    ),
]


def kind_of(name: ReferenceName | None) -> ReferenceKind | None:
    """Return what the library calls it; None leaves the choice to it."""
    if name is None:
        return None
    return "pytorch" if name is ReferenceName.PYTORCH else "float32_graph"

"""Options that name adapters."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from conversions.weights.lora.request import AdapterRequest

LoraOption = Annotated[
    list[str] | None,
    typer.Option(
        "--lora",
        metavar="FILE[:WEIGHT]",
        help="Merge this LoRA, LoCon, LoHa, LoKr or DoRA; several add up. [default weight: 1]",
    ),
]
TextualInversionOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--textual-inversion",
        metavar="FILE",
        help="Add this embedding; its token is the name inside, or the file's.",
    ),
]
IgnoreUnmatchedOption = Annotated[
    bool, typer.Option("--ignore-unmatched", help="Leave out what of an adapter the model has no place for.")
]


def requests_of(texts: list[str] | None) -> tuple[AdapterRequest, ...]:
    """Read the values of --lora.

    Raises:
        ConversionError: ``lora.weight``; a weight is no number.
    """
    from conversions.weights.lora.request import parse_request

    return tuple(parse_request(text) for text in texts or ())

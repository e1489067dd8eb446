"""Options that name adapters."""

from __future__ import annotations

from typing import Annotated

import typer

LoraOption = Annotated[
    list[str] | None,
    typer.Option(
        "--lora",
        metavar="FILE|REPO[:WEIGHT]",
        help="Merge this LoRA, LoCon, LoHa, LoKr or DoRA; several add up. REPO is owner/name or "
        "owner/name:file on the Hub, or a file's address there. [default weight: 1]",
    ),
]
TextualInversionOption = Annotated[
    list[str] | None,
    typer.Option(
        "--textual-inversion",
        metavar="FILE|REPO",
        help="Add this embedding; its token is the name inside, or the file's.",
    ),
]
IgnoreUnmatchedOption = Annotated[
    bool, typer.Option("--ignore-unmatched", help="Leave out what of an adapter the model has no place for.")
]

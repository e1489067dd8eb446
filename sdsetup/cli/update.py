"""``sdsetup update``."""

from __future__ import annotations

from typing import Annotated

import typer


def update(
    back: Annotated[bool, typer.Option("--back", help="Bring back what was there before.")] = False,
) -> None:
    """Update to the newest release and the versions tested with it, or go back."""
    from sdsetup.bootstrap import places
    from sdsetup.bootstrap.update import run_here_or_there

    raise typer.Exit(run_here_or_there(places.environment_folder(), go_back=back))

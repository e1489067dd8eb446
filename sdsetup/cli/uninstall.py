"""``sdsetup uninstall``: the bootstrap does it, also where the packages are broken."""

from __future__ import annotations

from typing import Annotated

import typer


def uninstall(
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be removed, and stop.")] = False,
) -> None:
    """Remove what was installed, and leave packages, images and downloaded models."""
    from sdsetup.bootstrap.uninstall import run

    raise typer.Exit(run(yes=yes, dry_run=dry_run))

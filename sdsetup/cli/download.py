"""``sdsetup download``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from sdsetup.bootstrap.command_name import quoted, typed
from sdsetup.cli import output, progress
from sdsetup.disk_space import human_size
from sdsetup.errors import UsageError, saying_what_is_kept

if TYPE_CHECKING:
    from sdsetup.hub import DownloadPlan


def download(
    model: Annotated[str, typer.Argument(help="owner/name, owner/name@revision, or a model's page.")],
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit.")] = None,
    variant: Annotated[str, typer.Option(help="Prefer the weights of this variant, such as fp16.")] = "",
    local_dir: Annotated[
        Path | None, typer.Option(help="Fill this folder instead of the Hub's cache.", file_okay=False)
    ] = None,
    allow_pickle: Annotated[
        bool, typer.Option("--allow-pickle", help="Accept weights that are only pickles.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would come, and stop.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Write one JSON document to stdout.")] = False,
) -> None:
    """Download the files of a model that a conversion needs, and no others."""
    from sdsetup import hub

    kept = "What was downloaded is kept."
    with saying_what_is_kept(lambda: kept), progress.listening() as listener:
        ref = hub.resolve(model, revision, listener=listener)
        if not isinstance(ref, hub.HubModel):
            raise UsageError(
                "usage.nothing-to-download",
                f"{ref.name} is on this machine already.",
                f"Convert it: {typed()} convert {quoted(model)}",
            )
        plan = hub.plan(
            ref, variant=variant, allow_pickle=allow_pickle, local_dir=local_dir, listener=listener
        )
        if not as_json:
            show_download(plan, everything=dry_run)
        folder = None if dry_run else hub.download(plan, listener=listener)
    if as_json:
        output.emit_json(_document(plan, folder))
    elif folder is not None:
        output.emit(str(folder))


def show_download(plan: DownloadPlan, *, everything: bool = False) -> None:
    """Show what a download brings, and under which licence."""
    model = plan.model
    licence = f", licence {model.licence.name} ({model.licence.page})" if model.licence is not None else ""
    output.say(f"{model.repo_id} at {model.commit[:8]}{licence}")
    if everything:
        table = Table(box=None)
        table.add_column("file", overflow="fold")
        table.add_column("size", justify="right")
        table.add_column("")
        for file in plan.files:
            here = "in place" if file.name in plan.cached else ""
            table.add_row(file.name, human_size(file.size_bytes or 0), here)
        output.show(table)
    output.say(
        f"{len(plan.files)} files, {human_size(plan.total_bytes)}; "
        f"to download: {human_size(plan.download_bytes)}"
    )


def _document(plan: DownloadPlan, folder: Path | None) -> dict[str, Any]:
    model = plan.model
    return {
        "repo_id": model.repo_id,
        "revision": model.revision,
        "commit": model.commit,
        "licence": None
        if model.licence is None
        else {"name": model.licence.name, "page": model.licence.page},
        "total_bytes": plan.total_bytes,
        "download_bytes": plan.download_bytes,
        "files": [
            {
                "name": file.name,
                "size_bytes": file.size_bytes,
                "hash": file.etag,
                "in_place": file.name in plan.cached,
            }
            for file in plan.files
        ],
        "folder": None if folder is None else str(folder),
    }

"""``sdsetup verify``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from sdsetup.cli import output, package_folder, placement, progress
from sdsetup.cli.convert import show_report
from sdsetup.cli.device_options import AdapterOption, DeviceOption, ProviderOption
from sdsetup.cli.memory import show_memory
from sdsetup.cli.reference_option import ReferenceOption, kind_of


def verify(
    package: Annotated[Path, typer.Argument(help="Folder of the package.")],
    checkpoint: Annotated[
        Path | None, typer.Option(help="The checkpoint it was made of: compare the numbers too.")
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            help="Only tell whether this target has a kernel for every node, such as directml; runs nothing."
        ),
    ] = None,
    width: Annotated[
        int | None,
        typer.Option(min=64, help="Of the image that memory and --target are judged for. [default: native]"),
    ] = None,
    height: Annotated[
        int | None,
        typer.Option(min=64, help="Of the image that memory and --target are judged for. [default: native]"),
    ] = None,
    provider: ProviderOption = None,
    device_id: DeviceOption = None,
    adapter: AdapterOption = None,
    reference: ReferenceOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Write one JSON document to stdout.")] = False,
) -> None:
    """Check a package: files, graphs, where every node runs, and the numbers."""
    from conversions.package.layout import open_package
    from sdsetup import workflow
    from sdsetup.imaging.image_memory import package_memory

    package_folder.demand(package, "verify")
    opened = open_package(package)
    native = opened.recipe.native
    size = replace(native, width=width or native.width, height=height or native.height)
    if target is not None:
        if not placement.check(opened, target, size, as_json=as_json):
            raise typer.Exit(1)
        return
    with progress.listening() as listener:
        report = workflow.verify_package(
            package,
            checkpoint=checkpoint,
            provider=provider,
            device_id=device_id,
            adapter=adapter,
            reference=kind_of(reference),
            listener=listener,
        )
    memory = package_memory(opened, report.provider, size) if report.submodels else None
    if as_json:
        output.emit_json({**report.document(), "memory": None if memory is None else memory.as_dict()})
    else:
        show_report(report, opened, None if memory is None else memory.forecast)
        if memory is not None:
            show_memory(memory)
    for problem in report.all_problems:
        output.say(problem, style="red")
    if not report.passed:
        raise typer.Exit(1)
    if not as_json:
        output.say(f"{package} is whole and right on {report.device}.", style="bold green")

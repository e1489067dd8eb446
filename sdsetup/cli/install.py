"""``sdsetup install``: from a bare CPython to a verified package and a first image.

The environment was made before this runs, by ``sdsetup.bootstrap``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sdsetup.bootstrap import console, places
from sdsetup.bootstrap.command_name import quoted, typed
from sdsetup.bootstrap.install_plan import HANG
from sdsetup.bootstrap.installer import FLAVOURS
from sdsetup.cli import output, progress
from sdsetup.cli.convert import (
    PrecisionOption,
    image_document,
    kept_of,
    precisions_of,
    show_image,
    show_next,
    show_report,
)
from sdsetup.cli.report_option import ReportOption, reporting
from sdsetup.cli.viewer import open_in_viewer


def install(
    model: Annotated[
        str, typer.Argument(help="A diffusers folder, a model of the Hub (owner/name), or demo.")
    ] = "demo",
    precision: PrecisionOption = None,
    folder: Annotated[Path, typer.Option(metavar="FOLDER", help="Where packages and images go.")] = Path(),
    images_folder: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Where the image goes. [default: images]")
    ] = None,
    flavour: Annotated[
        str | None,
        typer.Option(
            metavar="|".join(FLAVOURS),
            help="Which ONNX Runtime. [default: this machine's, directml or cpu]",
        ),
    ] = None,
    lean: Annotated[
        bool,
        typer.Option(
            "--lean", help="Leave out torch, diffusers and transformers: known architectures need none."
        ),
    ] = False,
    torch: Annotated[
        bool, typer.Option("--torch", help="Fail where no torch without CUDA can be had, rather than go on.")
    ] = False,
    offline: Annotated[
        Path | None, typer.Option(metavar="BUNDLE", help="Install from a bundle, without a network.")
    ] = None,
    bundle: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Make a bundle there, with the model, and convert nothing."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask whether the plan is right.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan, and stop.")] = False,
    report: ReportOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Write one JSON document to stdout.")] = False,
) -> None:
    """Install what is needed, convert a model, verify it, and make the first image.

    Whatever is there already is kept: a second run takes seconds.
    """
    from conversions.options import Options
    from sdsetup import workflow
    from sdsetup.cli.login import log_in_where_needed

    del flavour, lean, torch  # read when the environment was made
    if bundle is not None:
        from sdsetup import bundled_model
        from sdsetup.bootstrap.bundle import say_how_to_use

        with progress.listening() as listener:
            bundled_model.put(model, bundle, listener)
        say_how_to_use(bundle, model)
        return
    if offline is not None:
        from sdsetup import bundled_model

        model = bundled_model.find(model, offline)
    whole, single = precisions_of(precision or ())
    options = Options(precision=whole, precisions=single, target=workflow.default_target())
    place = folder.expanduser() / workflow.package_folder(model, options)
    images = (images_folder or folder / "images").expanduser()
    if dry_run:
        _show_plan(model, place, images, as_json=as_json)
        return
    if not place.exists() and not yes:
        log_in_where_needed(model)
    with reporting("install", model, place, report, lambda: kept_of(place)) as run:
        installed = workflow.install(model, options, place, images, run.listener)
        converted = installed.conversion
        run.add(package=installed.package, image=installed.image.path, device=installed.image.device)
        if converted is not None:
            run.add(plan=converted.plan, report=converted.report)
    found = None if converted is None else converted.report
    if as_json:
        output.emit_json(
            {
                "package": str(installed.package),
                **image_document(installed.image),
                "report": None if found is None else found.document(),
                "page": str(run.page) if run.written else None,
            }
        )
        return
    if converted is not None and found is not None:
        show_report(found, converted.package)
    if converted is None and installed.image is not None and not installed.image.device:
        output.say("Everything was there already.")
    output.say(f"The package: {installed.package}", style="bold green")
    show_image(installed.image)
    run.show()
    open_in_viewer(installed.image.path)
    show_next(installed.package)


def _show_plan(model: str, package: Path, images: Path, *, as_json: bool) -> None:
    """Show what there is to do in an environment that is whole; the others are planned by the bootstrap."""
    from sdsetup import workflow

    made = workflow.made_image(package, images) if package.exists() else None
    if as_json:
        output.emit_json(
            {
                "package": str(package) if package.exists() else None,
                "image": None if made is None else str(made),
            }
        )
        return
    if made is not None:
        output.say("Everything is there already; the same command without --dry-run changes nothing.")
    else:
        output.say("sdsetup install will do this:")
    convert = f"convert {model} and verify it; what that takes: {typed()} convert {quoted(model)} --dry-run"
    steps = (
        f"environment  it is whole, in {places.environment_folder()}: nothing to download",
        f"package      {f'it is there, {package}' if package.exists() else convert}",
        f"image        {f'it is there, {made}' if made else f'make the first one and check it, in {images}'}",
    )
    for step in steps:
        console.say_folded(f"  {step}", hang=HANG)

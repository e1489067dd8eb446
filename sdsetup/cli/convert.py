"""``sdsetup convert``."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, get_args

import typer
from rich.table import Table

from conversions.options import Precision
from sdsetup.cli import output, progress
from sdsetup.cli.adapter_options import IgnoreUnmatchedOption, LoraOption, TextualInversionOption
from sdsetup.cli.download import show_download
from sdsetup.cli.memory import show_memory
from sdsetup.cli.reference_option import ReferenceOption, kind_of
from sdsetup.cli.report_option import ReportOption, reporting
from sdsetup.disk_space import human_size
from sdsetup.errors import saying_what_is_kept

if TYPE_CHECKING:
    from conversions.conversion import Converted
    from conversions.forecast import Forecast
    from conversions.package.layout import Package
    from conversions.plan import ConversionPlan
    from conversions.verification.parity import ParityReport
    from sdsetup.workflow import FirstImage


class Target(StrEnum):
    """What a package is made for."""

    DIRECTML = "directml"
    CUDA = "cuda"
    CPU = "cpu"


PrecisionOption: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        metavar="TYPE", help="fp16, fp32, int8 or int4; SUBMODEL=TYPE for one submodel. [default: fp16]"
    ),
]


class PredictionType(StrEnum):
    """What a denoiser predicts."""

    EPSILON = "epsilon"
    V_PREDICTION = "v_prediction"


def convert(
    model: Annotated[
        str,
        typer.Argument(
            help="A diffusers folder, a single file (.safetensors), a model of the Hub (owner/name), the "
            "address of a file there, or demo."
        ),
    ],
    folder: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Folder of the package. [default: packages/NAME-TARGET-PRECISION]"
        ),
    ] = None,
    precision: PrecisionOption = None,
    target: Annotated[
        Target | None, typer.Option(help="What the package is made for. [default: this machine]")
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit on the Hub.")] = None,
    variant: Annotated[str, typer.Option(help="Prefer the weights of this variant, such as fp16.")] = "",
    cache: Annotated[
        bool, typer.Option("--cache/--no-cache", help="Download the checkpoint, or read it from the Hub.")
    ] = True,
    allow_pickle: Annotated[
        bool, typer.Option("--allow-pickle", help="Accept weights that are only pickles.")
    ] = False,
    base: Annotated[
        str,
        typer.Option(
            metavar="CHECKPOINT", help="Take what a single file lacks from this folder, package or model."
        ),
    ] = "",
    autoencoder: Annotated[
        str,
        typer.Option(
            "--vae",
            metavar="FOLDER|FILE|REPO",
            help="Use this autoencoder (VAE) instead of a single file's own.",
        ),
    ] = "",
    prediction_type: Annotated[
        PredictionType | None,
        typer.Option(help="What a single file's denoiser predicts. [default: as the file says]"),
    ] = None,
    keep_fp32: Annotated[
        list[str] | None, typer.Option(metavar="SUBMODEL", help="Leave this submodel in float32.")
    ] = None,
    safety_checker: Annotated[
        bool,
        typer.Option("--keep-safety-checker/--drop-safety-checker", help="Convert the safety checker too."),
    ] = True,
    t5: Annotated[
        bool,
        typer.Option(
            "--keep-t5/--drop-t5",
            help="Convert the T5 text encoder too, which Stable Diffusion 3 can do without.",
        ),
    ] = True,
    scheduler: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Let the package use this scheduler instead of the checkpoint's."),
    ] = None,
    lora: LoraOption = None,
    ignore_unmatched: IgnoreUnmatchedOption = False,
    textual_inversion: TextualInversionOption = None,
    verify: Annotated[
        bool, typer.Option("--verify/--no-verify", help="Compare every submodel with a reference.")
    ] = True,
    reference: ReferenceOption = None,
    smoke_test: Annotated[
        bool | None,
        typer.Option(
            "--smoke-test/--no-smoke-test",
            help="Make a first image with the package and look at it. [default: as --verify]",
        ),
    ] = None,
    images_folder: Annotated[Path, typer.Option(metavar="FOLDER", help="Where the first image goes.")] = Path(
        "images"
    ),
    copy: Annotated[
        bool, typer.Option("--copy", help="Copy all weights, rather than link to the checkpoint's files.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a package that is there.")] = False,
    retrace: Annotated[bool, typer.Option("--retrace", help="Trace all graphs anew.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and stop.")] = False,
    report: ReportOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Write one JSON document to stdout.")] = False,
) -> None:
    """Convert a checkpoint into a verified ONNX package, and make a first image with it."""
    from conversions.options import Options
    from conversions.package.destination import demand_elsewhere
    from sdsetup import workflow
    from sdsetup.checkpoint_source import CheckpointRequest
    from sdsetup.imaging import schedulers

    whole, single = precisions_of(precision or ())
    options = Options(
        precision=whole,
        target=target.value if target else workflow.default_target(),
        safety_checker=safety_checker,
        precisions={**single, **dict.fromkeys(keep_fp32 or (), "fp32")},
        scheduler_class=schedulers.class_of(scheduler) if scheduler else "",
        copy=copy,
    )
    drawing = verify if smoke_test is None else smoke_test
    request = workflow.ConvertRequest(
        checkpoint_request=CheckpointRequest(
            model=model,
            revision=revision,
            variant=variant,
            safety_checker=safety_checker,
            t5=t5,
            allow_pickle=allow_pickle,
            keep=cache,
            base=base,
            autoencoder=autoencoder,
            prediction_type=prediction_type.value if prediction_type else "",
        ),
        options=options,
        output=folder,
        overwrite=overwrite,
        verify=verify,
        reference=kind_of(reference),
        retrace=retrace,
        lora=tuple(lora or ()),
        textual_inversion=tuple(textual_inversion or ()),
        ignore_unmatched=ignore_unmatched,
        image=drawing,
    )
    place = folder or workflow.package_folder(model, options)
    demand_elsewhere(place)
    if dry_run:
        with saying_what_is_kept(lambda: kept_of(place)), progress.listening() as listener:
            planned = workflow.plan_conversion(request, listener)
            source, plan = planned.source, planned.plan
            with source.using:
                workflow.demand_graphs(planned, listener, retrace=retrace)
                memory = workflow.forecast_conversion(planned)
    else:
        with reporting("convert", model, place, report, lambda: kept_of(place)) as run:
            converted, image = workflow.convert_model(request, run.listener), None
            run.add(plan=converted.plan, package=converted.package.folder, report=converted.report)
            if drawing:
                image = workflow.first_image(converted.package.folder, images_folder, run.listener)
                run.add(image=image.path, device=image.device)
    if dry_run:
        if as_json:
            download_bytes = source.download.download_bytes if source.download is not None else 0
            output.emit_json(
                {
                    **plan.document(),
                    "output": str(place),
                    "download_bytes": download_bytes,
                    "memory": None if memory is None else memory.as_dict(),
                }
            )
        else:
            if source.download is not None:
                show_download(source.download)
            show_plan(plan, place)
            if memory is not None:
                show_memory(memory)
    elif as_json:
        page = str(run.page) if run.written else None
        output.emit_json({**_document(converted), **image_document(image), "page": page})
    else:
        if converted.report is not None:
            show_report(converted.report, converted.package)
        output.say(f"The package is ready: {converted.package.folder}", style="bold green")
        show_image(image)
        run.show()
        show_next(converted.package.folder)


def precisions_of(given: Sequence[str]) -> tuple[Precision, dict[str, Precision]]:
    """Read what was given as ``--precision``: that of the package, and those of single submodels.

    Raises:
        typer.BadParameter: Something is no precision.
    """
    whole: list[Precision] = []
    single: dict[str, Precision] = {}
    for text in given:
        submodel, _, name = text.rpartition("=")
        precision = next((known for known in get_args(Precision) if known == name), None)
        if precision is None:
            known = ", ".join(get_args(Precision))
            raise typer.BadParameter(f"{name!r} is not one of {known}.", param_hint="--precision")
        if submodel:
            single[submodel] = precision
        else:
            whole.append(precision)
    if len(whole) > 1:
        raise typer.BadParameter("it was given twice for the package.", param_hint="--precision")
    return (whole or ["fp16"])[0], single


def kept_of(package: Path) -> str:
    """Say what an interrupted conversion leaves at the place of its package."""
    from conversions.package.layout import MANIFEST, Staging

    begun = Staging(package, "").folder
    if begun.exists():
        return f"What is finished is kept in {begun}; the next run goes on from there."
    if (package / MANIFEST).is_file():
        return f"The package {package} is complete."
    return "No package was begun."


def show_plan(plan: ConversionPlan, place: Path) -> None:
    """Show what a conversion would do."""
    table = Table(box=None)
    for heading, justify in (
        ("component", "left"),
        ("submodels", "left"),
        ("reads", "right"),
        ("writes", "right"),
    ):
        table.add_column(heading, justify=justify)  # type: ignore[arg-type]
    for part in plan.components:
        submodels = ", ".join(f"{name} ({origin})" for name, origin in part.submodels.items())
        table.add_row(part.name, submodels, human_size(part.source_bytes), human_size(part.copied_bytes))
    output.show(table)
    for adapter in plan.adapters:
        output.say(f"Merged into the weights: {adapter.name}, weight {adapter.weight:g}")
    for embedding in plan.embeddings:
        output.say(f"Learned: {embedding.token}, {embedding.vectors} of {embedding.name}")
    output.say(f"{plan.options.precision} for {plan.options.target}, opset {plan.opset}, into {place}")
    linked = plan.package_bytes - plan.copied_bytes
    if linked:
        output.say(
            f"{human_size(linked)} stay in the checkpoint's files and are linked; "
            "on a disk without links they are copied."
        )
    output.say(
        f"Disk: {human_size(plan.copied_bytes)}. Memory: {human_size(plan.ram_bytes)}, "
        f"{human_size(plan.check_ram_bytes)} while verifying."
    )


def show_report(report: ParityReport, package: Package, needed: Forecast | None = None) -> None:
    """Show what a verification of a package found, with the size of each submodel and the VRAM it needs.

    Args:
        report: What was found.
        package: The package.
        needed: The memory that images need; None shows what the package's manifest says of its target.
    """
    from conversions.package.needs import device_bytes, weight_bytes

    table = Table(box=None)
    # The largest error and the cosine are in the JSON document and the report page.
    compared = ("PSNR", "needed") if any(each.parity for each in report.submodels) else ()
    if needed is None:
        known = {each.submodel: device_bytes(package, each.submodel) for each in report.submodels}
    else:
        known = {need.submodel: need.total_bytes for need in needed.needs}
    memory = ("VRAM",) if any(each is not None for each in known.values()) else ()
    for heading in ("submodel", *compared, "size", *memory, "nodes", "result"):
        left = heading in ("submodel", "result")
        table.add_column(heading, justify="left" if left else "right", no_wrap=heading != "nodes")
    for each in report.submodels:
        parity = each.parity
        numbers = ("", "") if parity is None else (f"{parity.psnr_db:.1f} dB", f"{parity.gate_db:.0f} dB")
        known_bytes = known[each.submodel]
        vram = "" if known_bytes is None else human_size(known_bytes)
        nodes = ", ".join(
            f"{count} on {name.removesuffix('ExecutionProvider')}"
            for name, count in each.placement.nodes.items()
        )
        table.add_row(
            each.submodel,
            *(numbers if compared else ()),
            human_size(weight_bytes(package, each.submodel)),
            *((vram,) if memory else ()),
            nodes,
            "[red]failed[/]" if each.problems else "[green]ok[/]",
        )
    output.show(table)
    if report.submodels:
        output.say(f"{report.summary()}.")
        if memory:
            size = package.recipe.native if needed is None else needed
            output.say(f"VRAM is a forecast for one image of {size.width}x{size.height}.")
    if report.reference == "float32_graph":
        output.say("Compared with a float32 evaluation of the same graphs; PyTorch was not asked.")
    elif report.reference:
        output.say("Compared with PyTorch.")


def show_image(image: FirstImage | None) -> None:
    """Show the first image of a package, if there is one, and what made it."""
    if image is None:
        return
    if image.device:
        pace = f"{image.seconds:.1f} s an image, loading included"
        output.say(f"The smoke test passed: {image.device}; {pace}.")
    for trial in image.others:
        output.say(f"Another adapter: {trial}")
    output.say(f"Its first image: {image.path}", style="bold green")


def show_next(package: Path) -> None:
    """Show how images are made with a package, as it is typed here."""
    from sdsetup.bootstrap import command_name
    from sdsetup.imaging.smoke_test import trials_for
    from sdsetup.machine.readers import shell
    from sdsetup.runtime.package import open_for_images

    opened = open_for_images(package)
    prompt = trials_for(opened.manifest)[-1].prompt
    inputs = "" if "text-to-image" in opened.recipe.tasks else " --init-image IMAGE --mask MASK"
    program = command_name.typed()
    # PowerShell takes a quoted path for text unless it is called.
    call = "& " if program.startswith('"') and shell() == "powershell" else ""
    where = command_name.quoted(str(package))
    output.say(f'Make an image: {call}{program} generate {where} "{prompt}"{inputs}')
    if activation := command_name.activation(shell()):
        output.say(f"To type `sdsetup` alone in this terminal, first: {activation}")


def image_document(image: FirstImage | None) -> dict[str, Any]:
    """Give what a JSON document says of a first image."""
    if image is None:
        return {"image": None, "device": "", "seconds": 0.0, "others": []}
    others = [
        {"device": str(each.device), "seconds": each.seconds, "problem": each.problem}
        for each in image.others
    ]
    return {"image": str(image.path), "device": image.device, "seconds": image.seconds, "others": others}


def _document(converted: Converted) -> dict[str, Any]:
    return {
        "package": str(converted.package.folder),
        "report": None if converted.report is None else converted.report.document(),
        "manifest": dict(converted.package.manifest),
    }

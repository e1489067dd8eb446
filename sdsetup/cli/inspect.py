"""``sdsetup inspect``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from sdsetup.bootstrap.command_name import quoted, typed
from sdsetup.cli import output, progress
from sdsetup.disk_space import human_size

if TYPE_CHECKING:
    from conversions.inspection import Inspection


def inspect(
    model: Annotated[
        str,
        typer.Argument(
            help="A diffusers folder, a single file (.safetensors), a model of the Hub (owner/name), the "
            "address of a file there, a package, or demo."
        ),
    ],
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit on the Hub.")] = None,
    variant: Annotated[str, typer.Option(help="Prefer the weights of this variant, such as fp16.")] = "",
    base: Annotated[
        str,
        typer.Option(
            metavar="FOLDER|OWNER/NAME",
            help="For a single file that lacks something: a checkpoint of the same family; one of the Hub is "
            "downloaded.",
        ),
    ] = "",
    allow_pickle: Annotated[
        bool, typer.Option("--allow-pickle", help="Accept weights that are only pickles.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Write one JSON document to stdout.")] = False,
) -> None:
    """Tell what a checkpoint or a package is and what converting it needs."""
    from sdsetup import model_inspection
    from sdsetup.checkpoint_source import CheckpointRequest

    with progress.listening() as listener:
        request = CheckpointRequest(
            model=model, revision=revision, variant=variant, base=base, allow_pickle=allow_pickle
        )
        found = model_inspection.inspect_model(request, listener)
    if as_json:
        output.emit_json({**found.inspection.document(), "conversion": found.conversion})
        return
    _show(found.inspection)
    if found.conversion is not None:
        needs = found.conversion
        output.say(
            f"Converting it to {needs['precision']} for {needs['target']} writes "
            f"{human_size(needs['copied_bytes'])} and takes {human_size(needs['ram_bytes'])} of memory, "
            f"{human_size(needs['check_ram_bytes'])} with verification."
        )
        if needs["to_trace"]:
            output.say(f"No graph at hand fits {', '.join(needs['to_trace'])}: PyTorch has to trace one.")
        if needs["not_installed"]:
            output.say(
                f"Not installed: {', '.join(needs['not_installed'])}. First: {typed()} install --torch"
            )
        given = {"--base": base, "--revision": revision, "--variant": variant}
        options = [part for name, value in given.items() if value for part in (name, value)]
        command = ["convert", model, *options, *(["--allow-pickle"] if allow_pickle else [])]
        then = "Then convert it" if needs["not_installed"] else "Convert it"
        output.say(f"{then}: {typed()} {' '.join(quoted(part) for part in command)}")
    else:
        example = "" if "text-to-image" in found.inspection.tasks else " --init-image IMAGE"
        package = quoted(str(Path(model)))
        output.say(f'Make an image: {typed()} generate {package} "a lighthouse at dawn"{example}')


def _show(inspection: Inspection) -> None:
    facts = Table(box=None, show_header=False)
    facts.add_column(style="bold")
    facts.add_column()
    for label, value in (
        ("family", f"{inspection.family} ({inspection.pipeline})"),
        ("made of" if inspection.what == "package" else "origin", inspection.origin),
        ("images", f"{inspection.width}x{inspection.height}; {', '.join(inspection.tasks)}"),
        ("scheduler", f"{inspection.scheduler or 'none'}, {inspection.prediction_type}"),
        ("usual choice", f"{inspection.steps} steps, guidance {inspection.guidance_scale:g}"),
        ("without", ", ".join(inspection.missing) or "nothing"),
        *(
            ("adapter", f"{each.name}, weight {each.weight:g}, sha256 {each.sha256[:12]}")
            for each in inspection.adapters
        ),
        *(
            ("learned", f"{each.token}, {each.vectors} of {each.name}, sha256 {each.sha256[:12]}")
            for each in inspection.embeddings
        ),
    ):
        facts.add_row(label, value)
    output.show(facts)
    table = Table(box=None)
    for heading in ("submodel", "class", "parameters", "types", "size"):
        table.add_column(heading, justify="right" if heading in ("parameters", "size") else "left")
    for each in inspection.submodels:
        parameters = "" if each.parameters is None else f"{each.parameters / 1e6:,.0f} M"
        table.add_row(
            each.name, each.class_name, parameters, ", ".join(each.types), human_size(each.size_bytes)
        )
    output.show(table)

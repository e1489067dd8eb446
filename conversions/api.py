"""The public functions of the library; ``conversions`` exports them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from conversions.checkpoint.folder import Checkpoint, open_folder
from conversions.checkpoint.single_file import open_file
from conversions.conversion import Checks, Converted
from conversions.conversion import convert as carry_out
from conversions.events import Listener, ignore
from conversions.inspection import Inspection, inspect_checkpoint, inspect_package
from conversions.options import Options, Precision, Target
from conversions.package.layout import MANIFEST, Package, open_package
from conversions.plan import make_plan
from conversions.providers.devices import CPU, Device
from conversions.verification.parity import ParityReport
from conversions.verification.parity import verify as compare
from conversions.verification.references import ReferenceKind, default_reference


def open_checkpoint(folder: str | Path, *, variant: str = "") -> Checkpoint:
    """Open a checkpoint in the diffusers layout, or a single safetensors file; reads small parts only.

    Args:
        folder: The folder with ``model_index.json``, or the file.
        variant: Weight files to prefer where there are several, such as ``"fp16"``.

    Raises:
        ConversionError: The folder is missing, or is no checkpoint that can be converted.
    """
    path = Path(folder)
    return open_file(path) if path.is_file() else open_folder(path, variant=variant)


def convert(
    checkpoint: Checkpoint,
    output: str | Path,
    *,
    precision: Precision = "fp16",
    target: Target = "directml",
    precisions: Mapping[str, Precision] | None = None,
    safety_checker: bool = True,
    verify_on: Device | None = CPU,
    reference: ReferenceKind | None = None,
    overwrite: bool = False,
    graph_cache: str | Path | None = None,
    listener: Listener = ignore,
) -> Converted:
    """Convert a checkpoint into an ONNX package, and compare every submodel with a reference.

    Args:
        checkpoint: As :func:`open_checkpoint` gives it.
        output: Folder of the package; appears whole or not at all.
        precision: Element type of weights and activations; ``"int8"`` or ``"int4"`` for quantised weights.
        target: What the package is made for.
        precisions: Precisions of single submodels, by name.
        safety_checker: Whether a safety checker that the checkpoint has goes into the package.
        verify_on: Where the submodels run when they are verified; None verifies nothing.
        reference: What they are compared with: ``"pytorch"``, or ``"float32_graph"``, an evaluation of the
            same graph on the checkpoint's weights that needs no torch. None takes PyTorch where installed.
        overwrite: Whether a package at ``output`` is replaced, once the new one is verified.
        graph_cache: Folder where traced graphs are kept; None keeps none.
        listener: Told of the progress.

    Raises:
        ConversionError: The checkpoint cannot be converted, or the result is not the same model; nothing is
            published.
    """
    options = Options(
        precision=precision, target=target, precisions=precisions or {}, safety_checker=safety_checker
    )
    cache = None if graph_cache is None else Path(graph_cache)
    return carry_out(
        make_plan(checkpoint, options, cache),
        checkpoint,
        Path(output),
        tool_version="",
        graph_cache=cache,
        checks=None
        if verify_on is None
        else Checks(device=verify_on, reference=reference or default_reference()),
        overwrite=overwrite,
        listener=listener,
    )


def verify(
    package: str | Path,
    checkpoint: Checkpoint | None = None,
    *,
    device: Device = CPU,
    reference: ReferenceKind | None = None,
    graph_cache: str | Path | None = None,
    listener: Listener = ignore,
) -> ParityReport:
    """Verify a package: files, graphs, where nodes run, and numbers.

    Args:
        package: Its folder.
        checkpoint: What it was made of; None compares no numbers.
        device: Where the submodels run.
        reference: As for :func:`convert`.
        graph_cache: Folder of traced graphs, which ``"float32_graph"`` looks into besides those that ship.
        listener: Told of the progress.

    Raises:
        ConversionError: The package cannot be read, or the device refuses a submodel.
    """
    return compare(
        open_package(Path(package)),
        checkpoint,
        device=device,
        reference=reference,
        graph_cache=None if graph_cache is None else Path(graph_cache),
        listener=listener,
    )


def inspect(model: str | Path | Checkpoint | Package) -> Inspection:
    """Tell what a checkpoint or a package is: family, submodels, types, sizes, scheduler.

    Args:
        model: A folder, or what was opened before.

    Raises:
        ConversionError: It is neither.
    """
    if isinstance(model, Checkpoint):
        return inspect_checkpoint(model)
    if isinstance(model, Package):
        return inspect_package(model)
    folder = Path(model)
    if (folder / MANIFEST).is_file():
        return inspect_package(open_package(folder))
    return inspect_checkpoint(open_checkpoint(folder))

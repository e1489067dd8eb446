"""Compose the toolkit's steps: plan, convert, verify, install; without a console."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs

from conversions.events import Listener, Notice, Planned
from conversions.options import Options, Target
from sdsetup import __version__, main_memory
from sdsetup.checkpoint_source import CheckpointRequest, Source, find
from sdsetup.errors import SetupError
from sdsetup.steps import conversion_steps
from sdsetup.verification_choices import chosen_reference, device_for
from sdsetup.weight_changes import WeightChanges, find_changes

if TYPE_CHECKING:
    from conversions.checkpoint.folder import Checkpoint
    from conversions.conversion import Converted
    from conversions.plan import ConversionPlan
    from conversions.verification.parity import ParityReport
    from conversions.verification.references import ReferenceKind
    from sdsetup.imaging.adapter_trials import AdapterTrial
    from sdsetup.imaging.image_memory import ImageMemory

# Enough steps for the demo and for Stable Diffusion with most schedulers.
_FIRST_STEPS = 20
# Without a GPU; then the image is smaller, and made in fewer steps. Opening the submodels comes on top.
_FIRST_IMAGE_CPU_SECONDS = 45.0


@dataclass(frozen=True, kw_only=True)
class ConvertRequest:
    """Settings of a conversion.

    Attributes:
        checkpoint_request: The checkpoint to convert.
        options: Options that change what the package contains.
        output: Folder of the package; None derives it from the model's name.
        overwrite: Whether to replace an existing package.
        verify: Whether to verify the package before publishing it.
        reference: What to compare with; None takes PyTorch where it is installed.
        retrace: Whether to trace graphs that are available already.
        lora: Places of adapters that are merged into the weights, in order, each with an optional weight.
        textual_inversion: Places of embeddings that the package learns, in order.
        ignore_unmatched: Whether keys of adapters that belong to nothing are left out.
        image: Whether a first image follows, which counts as a step of the whole.
    """

    checkpoint_request: CheckpointRequest
    options: Options = field(default_factory=Options)
    output: Path | None = None
    overwrite: bool = False
    verify: bool = True
    reference: ReferenceKind | None = None
    retrace: bool = False
    image: bool = False
    lora: tuple[str, ...] = ()
    textual_inversion: tuple[str, ...] = ()
    ignore_unmatched: bool = False


def graph_cache() -> Path:
    """Return the user's cache folder for traced graphs."""
    return platformdirs.user_cache_path("sdsetup", appauthor=False) / "graphs"


def default_target() -> Target:
    """Return the best target for this machine."""
    if sys.platform == "win32":
        return "directml"
    try:
        import onnxruntime
    except ImportError:
        return "cpu"
    return "cuda" if "CUDAExecutionProvider" in onnxruntime.get_available_providers() else "cpu"


def package_folder(model: str, options: Options) -> Path:
    """Return the default folder of a model's package: ``packages/NAME-TARGET-PRECISION``, and single ones."""
    given = Path(model).expanduser()
    named = given.resolve() if given.name in ("", "..") else given  # the current folder, or one above it
    plain = re.sub(r"\.(safetensors|ckpt)(\?.*)?$", "", named.name, flags=re.IGNORECASE)
    name = re.sub(r"[^\w.-]+", "-", plain.split("@")[0]).strip("-.") or "model"
    single = "".join(f"-{submodel}-{precision}" for submodel, precision in sorted(options.precisions.items()))
    return Path("packages") / f"{name}-{options.target}-{options.precision}{single}"


@dataclass(frozen=True, kw_only=True)
class PlannedConversion:
    """A conversion that can begin.

    Attributes:
        source: The checkpoint as it was found.
        changes: What is merged into its weights.
        adapted: The checkpoint with them; large files may still be remote.
        plan: What will be done.
    """

    source: Source
    changes: WeightChanges
    adapted: Checkpoint
    plan: ConversionPlan


def plan_conversion(request: ConvertRequest, listener: Listener) -> PlannedConversion:
    """Find the checkpoint and plan its conversion; only small parts of a model on the Hub are read.

    Raises:
        SetupError: The model cannot be found or read, or its scheduler cannot be used.
        ConversionError: It cannot be converted, or what that needs is not installed.
    """
    from conversions.plan import make_plan
    from conversions.verification.references import demand_installed
    from sdsetup.imaging.checkpoint_scheduler import check_scheduler

    if request.verify and request.reference is not None:
        demand_installed(request.reference)
    source = find(request.checkpoint_request, listener)
    for notice in source.checkpoint.notices:
        listener(Notice(text=notice))
    label = request.checkpoint_request.model
    check_scheduler(label, source.checkpoint, request.options.scheduler_class)
    changes = find_changes(
        request.lora,
        request.textual_inversion,
        allow_pickle=request.checkpoint_request.allow_pickle,
        ignore_unmatched=request.ignore_unmatched,
        listener=listener,
    )
    adapted = changes.applied(source.checkpoint, listener)
    plan = make_plan(adapted, request.options, graph_cache())
    return PlannedConversion(source=source, changes=changes, adapted=adapted, plan=plan)


def demand_graphs(planned: PlannedConversion, listener: Listener, *, retrace: bool = False) -> None:
    """See that the graphs of a conversion are at hand, or can be traced and fit the weights.

    The source is in use meanwhile, and not closed.

    Raises:
        ConversionError: ``graph.needs_pytorch``, or a configuration and its weights do not belong together.
    """
    from conversions.graphs.obtain import demand_obtainable
    from conversions.plan import wanted_submodels

    submodels = wanted_submodels(planned.adapted, planned.plan.options)
    demand_obtainable(submodels, planned.adapted, graph_cache(), retrace, listener)


def forecast_conversion(planned: PlannedConversion) -> ImageMemory | None:
    """Forecast the memory needed for images of the checkpoint's native size.

    Returns:
        The forecast; None if a graph has not been traced yet.

    Raises:
        ConversionError: The target has no kernel for a node.
    """
    from conversions.plan import planned_graphs
    from sdsetup.imaging.image_memory import image_memory

    graphs = planned_graphs(planned.source.checkpoint, planned.plan.options, graph_cache())
    return None if graphs is None else image_memory(graphs, planned.source.checkpoint.recipe.native)


def convert_model(request: ConvertRequest, listener: Listener) -> Converted:
    """Convert a model: find, plan, download, convert, verify, publish.

    Raises:
        SetupError: The model cannot be found or read.
        ConversionError: It cannot be converted, or the result is not the same model.
    """
    from conversions.conversion import Checks, convert
    from conversions.graphs.obtain import demand_tracing
    from conversions.package.destination import demand_place

    output = request.output or package_folder(request.checkpoint_request.model, request.options)
    demand_place(output, overwrite=request.overwrite)
    planned = plan_conversion(request, listener)
    source, plan = planned.source, planned.plan
    demand_tracing(plan.submodels if request.retrace else plan.to_trace)
    with source.using:
        if source.download is not None:  # else the conversion begins with it
            demand_graphs(planned, listener, retrace=request.retrace)
        downloading = source.download is not None and source.checkpoint_request.keep
        checks = None
        if request.verify:
            main_memory.require_for_verification(plan.check_ram_bytes)
            device = device_for(request.options.target)
            checks = Checks(device=device, reference=chosen_reference(request.reference, listener))
            listener(Notice(text=f"The package will be verified on {device}."))
        listener(
            Planned(
                steps=conversion_steps(
                    plan,
                    download_bytes=source.download.download_bytes if source.download and downloading else 0,
                    verify=request.verify,
                    image=request.image,
                )
            )
        )
        return convert(
            plan,
            planned.changes.applied(source.fetch(output, plan, listener)),
            output,
            tool_version=__version__,
            graph_cache=graph_cache(),
            checks=checks,
            overwrite=request.overwrite,
            retrace=request.retrace,
            listener=listener,
        )


@dataclass(frozen=True, kw_only=True)
class FirstImage:
    """The image that a package's smoke test made.

    Attributes:
        path: The image file.
        device: The device it was made on, with its share of the work; empty if the image existed already.
        seconds: Of the quickest image of the smoke test, loading included.
        others: What became of the smoke test on other adapters; of the demo's package alone.
    """

    path: Path
    device: str = ""
    seconds: float = 0.0
    others: tuple[AdapterTrial, ...] = ()


def made_image(package: Path, images: Path) -> Path | None:
    """Find the first image of a package; None where there is none yet."""
    from sdsetup.imaging import image_file
    from sdsetup.runtime.package import open_for_images

    opened = open_for_images(package)
    return image_file.find_image_of(images, opened.name, opened.fingerprint)


def first_image(package: Path, images: Path, listener: Listener) -> FirstImage:
    """Make a package's smoke test, and keep its first image; one that is there already stays.

    Args:
        package: The package's folder.
        images: Folder of the image.
        listener: Told of the progress.

    Returns:
        The image.

    Raises:
        SetupError: A submodel failed, or an image is wrong; the first image is kept as ``NAME-wrong.png``.
    """
    from sdsetup.imaging import adapter_trials, image_file, smoke_test
    from sdsetup.runtime import start
    from sdsetup.runtime.package import open_for_images

    opened = open_for_images(package)
    if (made := image_file.find_image_of(images, opened.name, opened.fingerprint)) is not None:
        return FirstImage(path=made)
    path = images / f"{opened.name}.png"
    # One submodel at a time, so that small machines come to an image too.
    outcomes, runner = smoke_test.try_out(
        opened,
        start.DeviceRequest(low_vram=True),
        steps=_FIRST_STEPS,
        cpu_limit_seconds=_FIRST_IMAGE_CPU_SECONDS,
        listener=listener,
    )
    if any(outcome.faults for outcome in outcomes):
        path = path.with_stem(f"{path.stem}-wrong")  # a later run must not take it for the finished image
    path = smoke_test.keep(outcomes[0], opened, runner, path)
    smoke_test.raise_for(outcomes)
    others = adapter_trials.try_others(opened, runner.device, steps=_FIRST_STEPS, listener=listener)
    seconds = min(outcome.seconds for outcome in outcomes)
    return FirstImage(path=path, device=start.summary(runner), seconds=seconds, others=others)


@dataclass(frozen=True, kw_only=True)
class Installed:
    """Result of an installation.

    Attributes:
        package: The package's folder.
        image: The first image.
        conversion: What was converted and verified; None when the package was there already.
    """

    package: Path
    image: FirstImage
    conversion: Converted | None = None


def install(model: str, options: Options, folder: Path, images: Path, listener: Listener) -> Installed:
    """Convert and verify a model and make its first image; finished steps are skipped.

    Args:
        model: As for a conversion; ``demo`` is the one that comes with the program.
        options: Choices that shape the package.
        folder: Folder of the package.
        images: Folder of the image.
        listener: Told of the progress.

    Raises:
        SetupError: The model cannot be found, or its image is wrong.
        ConversionError: It cannot be converted, or the result is not the same model.
    """
    converted = None
    if not folder.exists():
        request = ConvertRequest(
            checkpoint_request=CheckpointRequest(model=model), options=options, output=folder, image=True
        )
        converted = convert_model(request, listener)
    return Installed(package=folder, image=first_image(folder, images, listener), conversion=converted)


def verify_package(
    folder: Path,
    *,
    checkpoint: Path | None,
    provider: str | None = None,
    device_id: int | None = None,
    adapter: str | None = None,
    reference: ReferenceKind | None = None,
    listener: Listener,
) -> ParityReport:
    """Verify a package on a device, chosen as for generating images.

    Args:
        folder: The package.
        checkpoint: The checkpoint that it was made of; None compares no numbers.
        provider: ONNX Runtime's name of the provider or a target; None takes the best there is.
        device_id: The provider's number of a device.
        adapter: Words of a device's name.
        reference: What to compare with; None takes PyTorch where it is installed.
        listener: Told of the progress.

    Raises:
        ConversionError: The package or the checkpoint cannot be read, or the device refuses a submodel.
        SetupError: The requested device is not available.
    """
    from conversions import open_checkpoint
    from conversions.package.layout import open_package
    from conversions.providers.onnx_session import require_onnxruntime
    from conversions.verification.parity import verify
    from sdsetup.runtime.devices import choose_device, list_devices

    package = open_package(folder)
    changes = (*package.manifest.get("adapters", ()), *package.manifest.get("embeddings", ()))
    merged = [str(entry["name"]) for entry in changes]
    if checkpoint is not None and merged:
        raise SetupError(
            "verify.adapters",
            f"{folder} has adapters merged or tokens learned ({', '.join(merged)}): its numbers are not the "
            "checkpoint's.",
            "leave --checkpoint out; the numbers were compared when the package was made.",
        )
    require_onnxruntime()
    device = choose_device(list_devices(), target=provider, number=device_id, name=adapter)
    return verify(
        package,
        None if checkpoint is None else open_checkpoint(checkpoint),
        device=device,
        reference=None if checkpoint is None else chosen_reference(reference, listener),
        graph_cache=graph_cache(),
        listener=listener,
    )

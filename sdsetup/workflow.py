"""The steps of the toolkit put together; no console."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs

from conversions.events import Listener, Notice
from conversions.options import Options, Target
from sdsetup import __version__
from sdsetup.checkpoint_source import CheckpointRequest, Source, find

if TYPE_CHECKING:
    from conversions.conversion import Converted
    from conversions.plan import ConversionPlan
    from conversions.providers.devices import Device
    from conversions.verification.parity import ParityReport
    from sdsetup.imaging.image_memory import ImageMemory

# Enough for the demo's image and for Stable Diffusion with most schedulers.
_FIRST_STEPS = 20


@dataclass(frozen=True, kw_only=True)
class ConvertRequest:
    """What a person asks of a conversion.

    Attributes:
        checkpoint_request: The checkpoint.
        options: Choices that shape the package.
        output: Folder of the package; None derives it from the model's name.
        overwrite: Whether a package there is replaced.
        verify: Whether the package is verified before it is published.
        retrace: Whether graphs at hand are traced anew.
    """

    checkpoint_request: CheckpointRequest
    options: Options = field(default_factory=Options)
    output: Path | None = None
    overwrite: bool = False
    verify: bool = True
    retrace: bool = False


def graph_cache() -> Path:
    """Return the folder where this user's traced graphs are kept."""
    return platformdirs.user_cache_path("sdsetup", appauthor=False) / "graphs"


def default_target() -> Target:
    """Return the target that this machine itself is."""
    if sys.platform == "win32":
        return "directml"
    try:
        import onnxruntime
    except ImportError:
        return "cpu"
    return "cuda" if "CUDAExecutionProvider" in onnxruntime.get_available_providers() else "cpu"


def package_folder(model: str, options: Options) -> Path:
    """Return where the package of a model goes when nobody says: ``packages/NAME-TARGET-PRECISION`` here."""
    name = re.sub(r"[^\w.-]+", "-", Path(model).name.split("@")[0]).strip("-.") or "model"
    return Path("packages") / f"{name}-{options.target}-{options.precision}"


def plan_conversion(request: ConvertRequest, listener: Listener) -> tuple[Source, ConversionPlan]:
    """Find the checkpoint and plan its conversion; of a model on the Hub, only small parts are read.

    Raises:
        SetupError: The model cannot be found or read.
        ConversionError: It cannot be converted.
    """
    from conversions.plan import make_plan

    source = find(request.checkpoint_request, listener)
    return source, make_plan(source.checkpoint, request.options, graph_cache())


def forecast_conversion(source: Source, options: Options) -> ImageMemory | None:
    """Forecast the memory of images of the size that the checkpoint was trained on.

    Returns:
        The forecast; None while a graph is still to be traced.

    Raises:
        ConversionError: The target has no kernel for a node.
    """
    from conversions.planned_graphs import planned_graphs, trained_side
    from sdsetup.imaging.image_memory import image_memory

    models = planned_graphs(source.checkpoint, options, graph_cache())
    side = trained_side(source.checkpoint)
    return None if models is None else image_memory(models, width=side, height=side)


def convert_model(request: ConvertRequest, listener: Listener) -> Converted:
    """Convert a model: find, plan, download, convert, verify, publish.

    Raises:
        SetupError: The model cannot be found or read.
        ConversionError: It cannot be converted, or the result is not the same model.
    """
    from conversions.conversion import Checks, convert

    source, plan = plan_conversion(request, listener)
    output = request.output or package_folder(request.checkpoint_request.model, request.options)
    checks = None
    if request.verify:
        device = _device_for(request.options.target)
        checks = Checks(device=device)
        listener(Notice(text=f"The package will be verified on {device}."))
    with source.using:
        return convert(
            plan,
            source.fetch(output, plan.package_bytes, listener),
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
    """The image that shows that a package works here.

    Attributes:
        path: Where it is.
        device: What it was made on, with the share of the work; empty when it was there already.
    """

    path: Path
    device: str = ""


def first_image(package: Path, images: Path, listener: Listener) -> FirstImage | None:
    """Make a package's smoke test, and keep its first image; one that is there already stays.

    Args:
        package: The package's folder.
        images: Folder of the image.
        listener: AdapterReading of the progress.

    Returns:
        The image; None when the package is of a kind that sdsetup does not draw with.

    Raises:
        SetupError: A submodel could not run, or an image is wrong; the first is kept, named so.
    """
    from sdsetup.imaging import image_file, smoke_test
    from sdsetup.runtime import start
    from sdsetup.runtime.package import draws_from_text, open_package

    if not draws_from_text(package):
        listener(Notice(text="No first image: sdsetup itself draws with Stable Diffusion 1.x and 2.x."))
        return None
    opened = open_package(package)
    if (made := image_file.find_image_of(images, opened.name, opened.fingerprint)) is not None:
        return FirstImage(path=made)
    path = images / f"{opened.name}.png"
    # One submodel at a time, so that small machines come to an image too.
    device_request = start.DeviceRequest(low_vram=True)
    outcomes, runner = smoke_test.try_out(opened, device_request, steps=_FIRST_STEPS, listener=listener)
    if any(outcome.faults for outcome in outcomes):
        path = path.with_stem(f"{path.stem}-wrong")  # not where another run would take it for done
    path = smoke_test.keep(outcomes[0], opened, runner, path)
    smoke_test.raise_for(outcomes)
    return FirstImage(path=path, device=start.summary(runner))


@dataclass(frozen=True, kw_only=True)
class Installed:
    """What an installation ends with.

    Attributes:
        package: The package's folder.
        image: The first image; None for a kind of package that sdsetup does not draw with.
        report: What verification found; None when the package was there already.
    """

    package: Path
    image: FirstImage | None
    report: ParityReport | None = None


def install(model: str, options: Options, images: Path, listener: Listener) -> Installed:
    """Bring a model to its first image: convert, verify, make an image; what is there already stays.

    Args:
        model: As for a conversion; ``demo`` is the one that comes with the program.
        options: Choices that shape the package.
        images: Folder of the image.
        listener: AdapterReading of the progress.

    Raises:
        SetupError: The model cannot be found, or its image shows nothing.
        ConversionError: It cannot be converted, or the result is not the same model.
    """
    folder, report = package_folder(model, options), None
    if not folder.exists():
        request = ConvertRequest(
            checkpoint_request=CheckpointRequest(model=model), options=options, output=folder
        )
        report = convert_model(request, listener).report
    return Installed(package=folder, image=first_image(folder, images, listener), report=report)


def verify_package(
    folder: Path,
    *,
    checkpoint: Path | None,
    provider: str | None = None,
    device_id: int | None = None,
    adapter: str | None = None,
    listener: Listener,
) -> ParityReport:
    """Verify a package on a device that is chosen as for making images.

    Args:
        folder: The package.
        checkpoint: The checkpoint that it was made of; None compares no numbers.
        provider: ONNX Runtime's name of the provider or a target; None takes the best there is.
        device_id: The provider's number of a device.
        adapter: Words of a device's name.
        listener: AdapterReading of the progress.

    Raises:
        ConversionError: The package or the checkpoint cannot be read, or the device refuses a submodel.
        SetupError: The wished device is not here.
    """
    from conversions.checkpoint.folder import open_folder
    from conversions.family import find_family
    from conversions.package.layout import open_package
    from conversions.providers.onnx_session import demand_onnxruntime
    from conversions.verification.parity import verify
    from sdsetup.runtime.devices import choose_device, list_devices

    package = open_package(folder)
    family = find_family(package.manifest["pipeline"])
    known = {submodel.name: submodel for submodel in family.submodels}
    demand_onnxruntime()
    device = choose_device(list_devices(), target=provider, number=device_id, name=adapter)
    return verify(
        package,
        {name: known[name] for name in package.submodels},
        None if checkpoint is None else open_folder(checkpoint),
        device=device,
        listener=listener,
    )


def _device_for(target: Target) -> Device:
    """Return the best hardware device of a target if the installed ONNX Runtime has one, else the CPU."""
    from conversions.providers.onnx_session import demand_onnxruntime
    from sdsetup.runtime.devices import choose_device, list_devices

    demand_onnxruntime()
    devices = list_devices()
    here = any(device.provider.target == target and not device.software for device in devices)
    return choose_device(devices, target=target if here else "cpu")

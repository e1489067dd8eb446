"""Open the package that makes the last steps of an image, such as SDXL's refiner."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from conversions.events import Listener
from conversions.package.layout import Package
from sdsetup.errors import UsageError
from sdsetup.imaging.pipeline import Pipeline, Refiner
from sdsetup.imaging.request import Request
from sdsetup.runtime import start
from sdsetup.runtime.package import open_for_images


def demand_refinable(request: Request, base: Package) -> Package | None:
    """Open the package of a request's refiner; None where the request names none.

    Raises:
        UsageError: The two packages do not work in the same latent space.
        SetupError: There is no such package.
    """
    if request.refiner is None:
        return None
    package = open_for_images(Path(request.refiner))
    ours, theirs = base.recipe.latents, package.recipe.latents
    if (ours.channels, ours.downscale, ours.scaling) != (theirs.channels, theirs.downscale, theirs.scaling):
        raise UsageError(
            "generate.refiner",
            f"{request.refiner} cannot refine images of {base.folder}: its latents are others.",
            "use the refiner that was made for this model.",
        )
    return package


@contextmanager
def open_refiner(
    request: Request, base: Package, device_request: start.DeviceRequest, listener: Listener
) -> Iterator[Refiner | None]:
    """Open the refiner of a request for the time of the block; gives None where it names none.

    Args:
        request: Names the refiner's package.
        base: The package that makes the first steps.
        device_request: Where to run.
        listener: Told of the progress.

    Raises:
        UsageError: The two packages do not work in the same latent space.
        SetupError: There is no such package, or no such device.
    """
    package = demand_refinable(request, base)
    if package is None:
        yield None
        return
    # The first package encodes and decodes, and checks.
    used = {*package.with_role("text"), *package.with_role("denoiser")}
    unused = frozenset(each.name for each in package.submodels) - used
    runner = start.start(package, device_request, request.size, listener, unused=unused)
    try:
        pipeline = Pipeline(package=package, runner=runner, listener=listener)
        yield Refiner(pipeline=pipeline, start=request.refiner_start)
    finally:
        runner.close()

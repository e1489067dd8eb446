"""Open the package that makes the last steps of an image, such as SDXL's refiner."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from conversions.package.layout import Package
from sdsetup.errors import UsageError
from sdsetup.imaging.pipeline import Pipeline, Refiner
from sdsetup.imaging.request import Request
from sdsetup.runtime.memory_plan import Use
from sdsetup.runtime.package import open_for_images
from sdsetup.runtime.start import Start


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


def use_of(refiner: Package) -> Use:
    """Return what runs of a refiner: the first package encodes and decodes, and checks."""
    used = {*refiner.with_role("text"), *refiner.with_role("denoiser")}
    return Use(package=refiner, unused=frozenset(each.name for each in refiner.submodels) - used)


@contextmanager
def open_refiner(package: Package | None, request: Request, begun: Start) -> Iterator[Refiner | None]:
    """Open a refiner for the time of the block; gives None where there is none.

    Args:
        package: As :func:`demand_refinable` gives it.
        request: Says where the refiner begins.
        begun: Where both packages run; planned for both.
    """
    if package is None:
        yield None
        return
    runner = begun.runner(package)
    try:
        pipeline = Pipeline(package=package, runner=runner, listener=begun.listener)
        yield Refiner(pipeline=pipeline, start=request.refiner_start)
    finally:
        runner.close()

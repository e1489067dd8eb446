"""The smoke test: does a package make an image, and where that can be judged, the one it was asked for?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conversions.events import Listener
from sdsetup import demo, new_file
from sdsetup.demo.judge import judge
from sdsetup.errors import SetupError
from sdsetup.imaging import image_file
from sdsetup.imaging.blank_image import find_blank
from sdsetup.imaging.pipeline import Pipeline, Request
from sdsetup.runtime import start
from sdsetup.runtime.package import Package
from sdsetup.runtime.runner import Runner

Judge = Callable[[NDArray[np.uint8], str], tuple[str, ...]]
"""Says everything that is wrong with an image, uint8 ``[height, width, 3]``, of a caption."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """An image to ask for.

    Attributes:
        prompt: What to show.
        seed: Where its noise starts.
        judge: Knows what the image must show; None where nobody can tell.
    """

    prompt: str
    seed: int
    judge: Judge | None = None


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a trial gave.

    Attributes:
        request: What was made.
        pixels: uint8 ``[height, width, 3]``.
        mean: Of all values, 0 to 255.
        deviation: Of all values from that mean.
        faults: Everything that is wrong, in plain words.
        seconds: How long it took, opening submodels included.
    """

    request: Request
    pixels: NDArray[np.uint8]
    mean: float
    deviation: float
    faults: tuple[str, ...]
    seconds: float


_ANY_PACKAGE = (Trial(prompt="a photograph of an astronaut riding a horse", seed=1),)


def trials_for(manifest: Mapping[str, Any]) -> tuple[Trial, ...]:
    """Return the images to ask a package for, by its manifest; the demo's can be told right from wrong."""
    if not demo.made_of_demo(manifest["checkpoint"].get("sha256", {})):
        return _ANY_PACKAGE
    return tuple(Trial(prompt=caption, seed=seed, judge=_wrong) for caption, seed in demo.CAPTIONS)


def _wrong(pixels: NDArray[np.uint8], caption: str) -> tuple[str, ...]:
    return judge(pixels, caption).reasons


def smoke_test(pipeline: Pipeline, trials: tuple[Trial, ...], *, steps: int) -> tuple[Outcome, ...]:
    """Make each trial's image and look at it.

    The safety checker runs on the first, but what it objects to is looked at all the same.

    Raises:
        SetupError: A submodel failed or gave numbers that are not finite.
    """
    outcomes: list[Outcome] = []
    for trial in trials:
        request = Request(prompt=trial.prompt, seed=trial.seed, steps=steps)
        images = pipeline.generate(request, check_safety=False)
        if not outcomes:
            pipeline.flag(images.pixels)
        pixels = images.pixels[0]
        faults = find_blank(pixels)
        if not faults and trial.judge is not None:
            faults = trial.judge(pixels, trial.prompt)
        outcomes.append(
            Outcome(
                request=request,
                pixels=pixels,
                mean=float(pixels.mean()),
                deviation=float(pixels.std()),
                faults=faults,
                seconds=images.total_seconds,
            )
        )
    return tuple(outcomes)


def try_out(
    package: Package, device_request: start.DeviceRequest, *, steps: int, listener: Listener
) -> tuple[tuple[Outcome, ...], Runner]:
    """Open a package, make all the images that are asked of it, and close it.

    Args:
        package: What to draw with.
        device_request: Where to run.
        steps: Scheduler steps of each image.
        listener: AdapterReading of the progress.

    Returns:
        The images, and the closed runner, which knows where the submodels ran.

    Raises:
        SetupError: The requested device is not here, a submodel failed or gave numbers that are not finite.
    """
    runner = start.start(package, device_request, listener)
    try:
        pipeline = Pipeline(package=package, runner=runner, listener=listener)
        return smoke_test(pipeline, trials_for(package.manifest), steps=steps), runner
    finally:
        runner.close()


def keep(outcome: Outcome, package: Package, runner: Runner, destination: Path) -> Path:
    """Write a trial's image with its metadata, and return where it is.

    Args:
        outcome: The image.
        package: What drew it.
        runner: What ran the package.
        destination: A .png file, or a folder; where the name is taken, the next free one is used.

    Raises:
        SetupError: It cannot be written there.
    """
    metadata = image_file.metadata_of(outcome.request, package, runner.device.provider.name)
    if destination.suffix and not destination.is_dir():
        destination = new_file.free_name(destination)
    (path,) = image_file.paths_for(destination, metadata)
    written = image_file.write_image(path, outcome.pixels, metadata)
    if written.rescued:
        raise SetupError("generate.output", written.remark, "choose another place for the images.")
    return written.path


def raise_for(outcomes: tuple[Outcome, ...]) -> None:
    """Fail if any image is wrong.

    Raises:
        SetupError: With what is wrong with each of them.
    """
    wrong = [
        f'"{outcome.request.prompt}" (seed {outcome.request.seed}): {"; ".join(outcome.faults)}'
        for outcome in outcomes
        if outcome.faults
    ]
    if wrong:
        raise SetupError(
            "smoke.image",
            f"{len(wrong)} of {len(outcomes)} smoke test images are wrong. {'. '.join(wrong)}.",
            "run sdsetup verify on the package; if it passes, convert again with --precision fp32.",
        )

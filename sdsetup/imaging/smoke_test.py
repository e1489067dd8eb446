"""Smoke test: generate an image and check that it is valid; judge its content where possible."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from conversions.events import Listener, Notice
from conversions.package.layout import Package
from sdsetup import demo, new_file
from sdsetup.demo.judge import judge
from sdsetup.durations import in_words
from sdsetup.errors import SetupError
from sdsetup.imaging import image_file, time_budget
from sdsetup.imaging.blank_image import find_blank
from sdsetup.imaging.pipeline import Pipeline
from sdsetup.imaging.request import Request
from sdsetup.runtime import start
from sdsetup.runtime.runner import Runner

Judge = Callable[[NDArray[np.uint8], str], tuple[str, ...]]
"""Returns everything that is wrong with an image, uint8 ``[height, width, 3]``, for a caption."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """An image to generate.

    Attributes:
        prompt: The prompt.
        seed: The seed.
        judge: Checks the image's content; None where that is not possible.
    """

    prompt: str
    seed: int
    judge: Judge | None = None


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Result of a trial.

    Attributes:
        request: The image request.
        pixels: uint8 ``[height, width, 3]``.
        mean: Mean of all values, 0 to 255.
        deviation: Standard deviation of all values.
        faults: Descriptions of everything that is wrong.
        seconds: Time taken, loading submodels included.
    """

    request: Request
    pixels: NDArray[np.uint8]
    mean: float
    deviation: float
    faults: tuple[str, ...]
    seconds: float


_ANY_PACKAGE = (Trial(prompt="a photograph of an astronaut riding a horse", seed=1),)


def trials_for(manifest: Mapping[str, Any]) -> tuple[Trial, ...]:
    """Return the trials for a package, by its manifest; only the demo's images can be judged."""
    if not demo.made_of_demo(manifest["checkpoint"].get("sha256", {})):
        return _ANY_PACKAGE
    return tuple(Trial(prompt=caption, seed=seed, judge=_demo_faults) for caption, seed in demo.CAPTIONS)


def _demo_faults(pixels: NDArray[np.uint8], caption: str) -> tuple[str, ...]:
    return judge(pixels, caption).reasons


def smoke_test(
    pipeline: Pipeline, trials: tuple[Trial, ...], *, steps: int, limit_seconds: float | None = None
) -> tuple[Outcome, ...]:
    """Generate each trial's image and check it.

    The safety checker runs on the first image, but flagged images are checked all the same.

    Args:
        pipeline: Ready to make images.
        trials: What to make.
        steps: Scheduler steps of each image.
        limit_seconds: Time for all images, for which they get smaller and fewer steps; None for any. Images
            whose content is judged are small, and get all their steps: with fewer they would be judged wrong.

    Raises:
        SetupError: A submodel failed or its outputs are not finite.
    """
    steps = min(steps, pipeline.package.recipe.defaults.steps)
    with TemporaryDirectory() as folder:
        inputs: dict[str, Any] = {**_inputs_for(pipeline.package, Path(folder))}
        if limit_seconds is not None and all(trial.judge is None for trial in trials):
            effort = _fitted(pipeline, trials[0], steps, inputs, limit_seconds / len(trials))
            steps, size = effort.steps, effort.size
            inputs |= {"width": size.width, "height": size.height}
        return _try_each(pipeline, trials, steps, inputs)


def _fitted(
    pipeline: Pipeline, trial: Trial, steps: int, inputs: Mapping[str, Any], limit_seconds: float
) -> time_budget.Effort:
    """Measure one step, and say what is left out where an image would take too long."""
    recipe = pipeline.package.recipe
    small = time_budget.smallest(recipe.native, recipe.size_multiple)
    request = Request(
        prompt=trial.prompt, seed=trial.seed, steps=steps, width=small.width, height=small.height, **inputs
    )
    effort = time_budget.fit(
        recipe.native, recipe.size_multiple, steps, pipeline.step_seconds(request), limit_seconds
    )
    size = effort.size
    if (size.width, size.height, effort.steps) != (recipe.native.width, recipe.native.height, steps):
        pipeline.listener(
            Notice(
                text=f"There is no GPU to use, so the first image gets {size.width}x{size.height} pixels and "
                f"{effort.steps} steps, which takes {in_words(effort.seconds)}; usual are "
                f"{recipe.native.width}x{recipe.native.height} and {steps}, as sdsetup generate makes them."
            )
        )
    return effort


def _inputs_for(package: Package, folder: Path) -> dict[str, str]:
    """Return what a request needs beside a prompt: nothing, or an image, or an image and a mask.

    The image is a gradient; the mask leaves its border.
    """
    tasks = package.recipe.tasks
    if "text-to-image" in tasks:
        return {}
    native = package.recipe.native
    across = np.linspace(0, 255, native.width, dtype=np.uint8)
    gradient = np.broadcast_to(across[None, :, None], (native.height, native.width, 3))
    Image.fromarray(np.ascontiguousarray(gradient)).save(folder / "image.png")
    if "image-to-image" in tasks:
        return {"init_image": str(folder / "image.png")}
    mask = np.full((native.height, native.width), 255, np.uint8)
    border = native.width // 8
    mask[:border] = mask[-border:] = mask[:, :border] = mask[:, -border:] = 0
    Image.fromarray(mask).save(folder / "mask.png")
    return {"init_image": str(folder / "image.png"), "mask": str(folder / "mask.png")}


def _try_each(
    pipeline: Pipeline, trials: tuple[Trial, ...], steps: int, inputs: Mapping[str, Any]
) -> tuple[Outcome, ...]:
    outcomes: list[Outcome] = []
    for trial in trials:
        request = Request(prompt=trial.prompt, seed=trial.seed, steps=steps, **inputs)
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
    package: Package,
    device_request: start.DeviceRequest,
    *,
    steps: int,
    cpu_limit_seconds: float | None = None,
    listener: Listener,
) -> tuple[tuple[Outcome, ...], Runner]:
    """Start a runner, run the smoke test on a package, and close the runner.

    Args:
        package: The package.
        device_request: The device to run on.
        steps: Scheduler steps of each image.
        cpu_limit_seconds: Time for all images where no GPU is used; None for any.
        listener: Told of the progress.

    Returns:
        The outcomes, and the closed runner with its statistics.

    Raises:
        SetupError: The device is not available, a submodel failed or its outputs are not finite.
    """
    runner = start.start(package, device_request, package.recipe.native, listener)
    try:
        pipeline = Pipeline(package=package, runner=runner, listener=listener)
        limit_seconds = cpu_limit_seconds if runner.device.provider.target == "cpu" else None
        trials = trials_for(package.manifest)
        return smoke_test(pipeline, trials, steps=steps, limit_seconds=limit_seconds), runner
    finally:
        runner.close()


def keep(outcome: Outcome, package: Package, runner: Runner, destination: Path) -> Path:
    """Write a trial's image with its metadata and return its path.

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
    """Raise if any image is wrong.

    Raises:
        SetupError: Names everything that is wrong with each image.
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

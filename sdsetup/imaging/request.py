"""What a person asks of an image, and the same with every choice made."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from conversions.package.layout import Package
from conversions.recipe import ImageSize, Recipe, Task
from sdsetup.errors import UsageError
from sdsetup.imaging import initial_image
from sdsetup.imaging.schedulers import Scheduler, make_scheduler, name_of, resolution_mu

_MOST_IMAGES = 64


@dataclass(frozen=True, kw_only=True)
class Request:
    """Everything that decides an image, given a package.

    Attributes:
        prompt: What to show.
        negative_prompt: What to keep away from.
        seed: Where the noise starts; image ``i`` of a batch uses ``seed + i``.
        steps: Scheduler steps; None takes the checkpoint's usual number.
        guidance_scale: How closely to follow the prompt; 1 or less turns guidance off; None takes the
            usual one.
        eta: Share of the training noise that DDIM adds back.
        width: In pixels; None takes the checkpoint's own.
        height: In pixels; None takes the checkpoint's own.
        images: Images in the batch.
        scheduler: A name of ``sdsetup.imaging.schedulers``; None takes the checkpoint's own.
        clip_skip: Layers of CLIP's text encoders to leave out at the end.
        init_image: Path of an image to start from; None starts from noise.
        mask: Path of an image that is white where the initial image is made anew; None makes all of it anew.
        refiner: Path of the package that makes the last steps; None leaves them to this one.
        refiner_start: Share of the way after which the refiner takes over, above 0 and below 1.
        strength: Share of the noise that the initial image gets, 0 to 1; None takes the task's usual share.
    """

    prompt: str
    negative_prompt: str = ""
    seed: int = 0
    steps: int | None = None
    guidance_scale: float | None = None
    eta: float = 0.0
    width: int | None = None
    height: int | None = None
    images: int = 1
    scheduler: str | None = None
    clip_skip: int = 0
    init_image: str | None = None
    mask: str | None = None
    strength: float | None = None
    refiner: str | None = None
    refiner_start: float = 0.8

    @property
    def task(self) -> Task:
        """What is asked for."""
        if self.mask is not None:
            return "inpainting"
        return "text-to-image" if self.init_image is None else "image-to-image"

    @property
    def size(self) -> ImageSize:
        """The images' size; only of a complete request."""
        assert self.width is not None
        assert self.height is not None
        return ImageSize(width=self.width, height=self.height, images=self.images)


def complete(request: Request, package: Package) -> Request:
    """Fill in what a request leaves to the checkpoint, and refuse what cannot be done.

    Raises:
        UsageError: A value is out of range, or the package cannot do what is asked.
        SetupError: An image cannot be read.
    """
    recipe = package.recipe
    defaults = recipe.defaults
    _check_task(request, package)
    size = ImageSize(width=defaults.width, height=defaults.height)
    if request.init_image is not None:
        size = initial_image.fitted_size(Path(request.init_image), size, recipe.size_multiple)
    request = replace(
        request,
        width=size.width if request.width is None else request.width,
        height=size.height if request.height is None else request.height,
        steps=defaults.steps if request.steps is None else request.steps,
        guidance_scale=defaults.guidance_scale if request.guidance_scale is None else request.guidance_scale,
        scheduler=request.scheduler or name_of(recipe.scheduler_config),
    )
    if request.task != "text-to-image" and request.strength is None:
        request = replace(request, strength=defaults.strength[request.task])
    _check_size(request, recipe.size_multiple, recipe.largest_side)
    if not 1 <= request.images <= _MOST_IMAGES:
        raise UsageError(
            "generate.images", f"--images {request.images} is out of range.", f"use 1 to {_MOST_IMAGES}."
        )
    if not 0 <= request.seed < 2**63:
        raise UsageError("generate.seed", f"--seed {request.seed} is out of range.", "use 0 to 2^63 - 1.")
    if not np.isfinite(request.guidance_scale or 0.0):
        raise UsageError(
            "generate.guidance",
            f"--guidance-scale {request.guidance_scale} is no number.",
            f"{defaults.guidance_scale:g} is usual.",
        )
    if request.strength is not None and not 0 < request.strength <= 1:
        raise UsageError(
            "generate.strength",
            f"--strength {request.strength:g} is out of range.",
            "use a number above 0, up to 1.",
        )
    scheduler = scheduler_for(request, recipe)
    if first_index(request, scheduler, recipe) >= len(scheduler.timesteps):
        raise UsageError(
            "generate.strength",
            f"--strength {request.strength:g} of {request.steps} steps leaves none to take.",
            "use more --steps or a larger --strength.",
        )
    if not 0 < request.refiner_start < 1:
        raise UsageError(
            "generate.refiner",
            f"--refiner-start {request.refiner_start:g} is out of range.",
            "use a number between 0 and 1; 0.8 is usual.",
        )
    most = recipe.most_clip_skip
    if request.clip_skip and not most:
        raise UsageError("generate.clip_skip", "this model has no layers to skip.", "leave --clip-skip out.")
    if not 0 <= request.clip_skip <= most:
        raise UsageError(
            "generate.clip_skip",
            f"--clip-skip {request.clip_skip} is out of range for this package.",
            f"use 0 to {most}.",
        )
    return request


def scheduler_for(request: Request, recipe: Recipe) -> Scheduler:
    """Plan the steps of a complete request.

    Raises:
        UsageError: Steps or eta are out of range.
        SetupError: The scheduler's configuration holds something that is not supported.
    """
    strength = request.strength if _scales_strength(request, recipe) else None
    levels = recipe.noise_levels(request.steps or 0, request.size)
    mu, sigmas = None, None
    if levels is not None:
        mu = resolution_mu(recipe.scheduler_config, levels.image_tokens) if levels.mu is None else levels.mu
        # A person who asks for another scheduler than the pipeline's own gets that one's levels.
        sigmas = levels.sigmas if request.scheduler == name_of(recipe.scheduler_config) else None
    return make_scheduler(
        request.scheduler or "",
        recipe.scheduler_config,
        request.steps or 0,
        eta=request.eta,
        mu=mu,
        sigmas=sigmas,
        strength=1.0 if strength is None else strength,
    )


def first_index(request: Request, scheduler: Scheduler, recipe: Recipe) -> int:
    """Return the evaluation that a complete request begins with."""
    if request.strength is None or _scales_strength(request, recipe):
        return 0
    return scheduler.first_index(request.strength)


def _scales_strength(request: Request, recipe: Recipe) -> bool:
    """Say whether all steps are made, closer together, instead of fewer steps.

    Source: diffusers' image-to-image pipeline of latent consistency models.
    """
    return request.task == "image-to-image" and recipe.distilled_steps and request.scheduler in ("lcm", "tcd")


def _check_task(request: Request, package: Package) -> None:
    if request.mask is not None and request.init_image is None:
        raise UsageError("generate.mask", "--mask needs an image to change.", "add --init-image IMAGE.")
    if request.strength is not None and request.init_image is None:
        raise UsageError(
            "generate.strength", "--strength needs an image to start from.", "add --init-image IMAGE."
        )
    if request.task not in package.recipe.tasks:
        able = sorted(package.recipe.tasks)
        if able == ["inpainting"]:
            hint = "add --init-image IMAGE --mask MASK."
        elif "image-to-image" in able:
            hint = "add --init-image IMAGE."
        elif request.init_image is not None and "text-to-image" in able:
            hint = "leave --init-image out, or use another model."
        else:
            hint = "use a package of another checkpoint."
        raise UsageError(
            "generate.task",
            f"this package is for {' and '.join(able)}; {request.task} was asked for.",
            hint,
        )
    if request.init_image is not None and not package.with_role("encoder"):
        raise UsageError(
            "generate.encoder",
            "this package has no image encoder, so it cannot start from an image.",
            "convert the checkpoint again; leave out --init-image for an image from text.",
        )


def _check_size(request: Request, step: int, most: int | None) -> None:
    for name, side in (("width", request.width), ("height", request.height)):
        if side is None or side < 1 or side % step:
            below = max(step, (side or 0) // step * step)
            raise UsageError(
                "generate.size",
                f"--{name} {side} does not work: this package needs multiples of {step} pixels.",
                f"use --{name} {below} or --{name} {below + step}.",
            )
        if most is not None and side > most:
            raise UsageError(
                "generate.size",
                f"--{name} {side} is too large: this model knows positions up to {most} pixels.",
                f"use --{name} {most} at most.",
            )

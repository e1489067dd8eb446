"""The one loop that makes images with a package's submodels: numpy and ONNX Runtime alone."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from conversions.events import Advanced, Finished, Listener, Notice, Started, ignore
from conversions.family import Role
from conversions.package.layout import Package
from conversions.recipe import Conditioning, GuidedPrompts, InitialImage
from sdsetup.bootstrap.command_name import quoted
from sdsetup.durations import in_words
from sdsetup.errors import SetupError
from sdsetup.imaging import initial_image
from sdsetup.imaging.blank_image import find_blank
from sdsetup.imaging.feature_extractor import extract
from sdsetup.imaging.latent_noise import LatentNoise
from sdsetup.imaging.package_prompts import PackagePrompts
from sdsetup.imaging.pixels import pixels_of
from sdsetup.imaging.preview import Preview
from sdsetup.imaging.rehearsal import rehearse
from sdsetup.imaging.request import Request, complete, first_index, scheduler_for
from sdsetup.imaging.schedulers import Floats, Scheduler, State
from sdsetup.runtime.fitting_run import run_fitting
from sdsetup.runtime.runner import Runner
from sdsetup.runtime.sessions import Array

logger = logging.getLogger(__name__)

_HALF = 0.5
_WORTH_SAYING_SECONDS = 10.0


@dataclass(frozen=True, kw_only=True)
class GeneratedImages:
    """What a request gave.

    Attributes:
        pixels: uint8 ``[images, height, width, 3]``.
        flagged: For each image whether the safety checker objected; such an image is black.
        denoise_seconds: Time in the loop over the scheduler's steps.
        total_seconds: From the prompt to the pixels, opening submodels included.
        evaluations: Noise levels at which the denoiser ran, once or twice, for the whole batch.
    """

    pixels: NDArray[np.uint8]
    flagged: tuple[bool, ...]
    denoise_seconds: float
    total_seconds: float
    evaluations: int


@dataclass(frozen=True, kw_only=True)
class Refiner:
    """Another package that makes the last steps.

    Attributes:
        pipeline: Ready to make images.
        start: Share of the training timesteps that the base model goes through, 0 to 1.
    """

    pipeline: Pipeline
    start: float


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """A package ready to make images.

    Attributes:
        package: Where the submodels and their configurations are.
        runner: Runs the submodels.
        listener: Hears of progress.
        refiner: Makes the last steps; None makes all of them here.
        tokens: Tokens that are added to a tokenizer's own, by its folder.
        preview: Shows what the images are becoming; None shows nothing.
    """

    package: Package
    runner: Runner
    listener: Listener = ignore
    refiner: Refiner | None = None
    tokens: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    preview: Preview | None = None

    def generate(self, request: Request, *, check_safety: bool = True) -> GeneratedImages:
        """Make a batch of images.

        Args:
            request: What to make.
            check_safety: Ask the package's safety checker, where it has one.

        Raises:
            UsageError: A value of the request is out of range.
            SetupError: A submodel failed or gave numbers that are not finite.
        """
        started = perf_counter()
        request = complete(request, self.package)
        later: tuple[Role, ...] = ("decoder", "safety") if check_safety else ("decoder",)
        noise = LatentNoise.of(request.seed, request.images)
        rehearsed = self._rehearse(request, "denoiser", *later)
        self._open_ahead(rehearsed, "denoiser")
        conditioning = self.encode(request)
        self._done_with("text")
        start = noise.draw(self.package.recipe.latents.shape(request.size))
        initial = self.encode_initial(request, noise)
        self._done_with("encoder")
        self._open_ahead(rehearsed, *later)
        looping = perf_counter()
        latents, evaluations = self.denoise(request, conditioning, initial, start, noise)
        self._done_with("denoiser")
        if self.refiner is not None:
            latents, more = self.refiner.pipeline.refine(request, latents, noise, self.refiner.start)
            evaluations += more
        denoise_seconds = perf_counter() - looping
        pixels = self.decode(latents)
        self._done_with("decoder")
        flagged = self.flag(pixels) if check_safety else (False,) * len(pixels)
        self._done_with("safety")
        return GeneratedImages(
            pixels=np.where(np.array(flagged)[:, None, None, None], np.uint8(0), pixels),
            flagged=flagged,
            denoise_seconds=denoise_seconds,
            total_seconds=perf_counter() - started,
            evaluations=evaluations,
        )

    def refine(
        self, request: Request, latents: Floats, noise: LatentNoise, start: float
    ) -> tuple[Floats, int]:
        """Make the last steps on latents that another package has begun.

        Args:
            request: The same as for the first package.
            latents: As noisy as that package left them.
            noise: Gives more noise to schedulers that add some on the way.
            start: Share of the training timesteps that are behind.

        Source: ``denoising_start`` of diffusers' image-to-image pipelines.
        """
        conditioning = self.encode(request)
        self._done_with("text")
        scheduler = scheduler_for(request, self.package.recipe)
        first = scheduler.refiner_index(start)
        stop = len(scheduler.timesteps)
        state = scheduler.resume(latents, first)
        refined = self._walk(
            request, scheduler, state, range(first, stop), conditioning, None, latents, noise
        )
        self._done_with("denoiser")
        return refined, stop - first

    def step_seconds(self, request: Request) -> float:
        """Make one step of an image and return how long the denoiser ran, without opening it.

        Raises:
            UsageError: A value of the request is out of range.
            SetupError: A submodel failed or gave numbers that are not finite.
        """
        request = complete(request, self.package)
        silent = replace(self, listener=ignore)
        noise = LatentNoise.of(request.seed, request.images)
        conditioning = silent.encode(request)
        silent._done_with("text")
        start = noise.draw(self.package.recipe.latents.shape(request.size))
        initial = silent.encode_initial(request, noise)
        silent._done_with("encoder")
        scheduler = scheduler_for(request, self.package.recipe)
        state, first = scheduler.start(start), first_index(request, scheduler, self.package.recipe)
        silent._walk(request, scheduler, state, range(first, first + 1), conditioning, initial, start, noise)
        return sum(self.runner.usage()[self._denoiser].run_seconds[-len(conditioning.runs) :])

    def encode(self, request: Request) -> Conditioning:
        """Turn the prompts into what the denoiser is conditioned on."""
        recipe = self.package.recipe
        for name in self.package.with_role("text"):
            self.runner.skip_layers(name, request.clip_skip)
        return recipe.encode(
            self._run,
            self._prompts,
            GuidedPrompts(
                prompt=request.prompt,
                negative_prompt=request.negative_prompt,
                guidance_scale=request.guidance_scale or 0.0,
                clip_skip=request.clip_skip,
                size=request.size,
            ),
        )

    def encode_initial(self, request: Request, noise: LatentNoise) -> InitialImage | None:
        """Encode the image that is started from; None where a request has none.

        Source: ``prepare_latents`` and ``prepare_mask_latents`` of diffusers' inpainting pipelines.
        """
        if request.init_image is None:
            return None
        recipe = self.package.recipe
        shape = recipe.latents.shape(request.size)
        pixels = initial_image.read_pixels(Path(request.init_image), request.size)

        def encoded(image: Floats) -> Floats:
            rows = np.repeat(image, request.images, axis=0)
            return recipe.encode_image(self._run, rows, noise.draw(shape))

        if request.mask is None:
            return InitialImage(latents=encoded(pixels))
        mask = initial_image.read_mask(Path(request.mask), request.size)
        step = recipe.latents.downscale
        keeps_some = recipe.blends_masks or request.strength != 1
        return InitialImage(
            latents=encoded(pixels) if keeps_some else None,
            mask=np.ascontiguousarray(mask[:, :, ::step, ::step]),
            masked_latents=None if recipe.blends_masks else encoded(pixels * (mask < _HALF)),
        )

    def denoise(
        self,
        request: Request,
        conditioning: Conditioning,
        initial: InitialImage | None,
        start: Floats,
        noise: LatentNoise,
    ) -> tuple[Floats, int]:
        """Step from noise, or from a noisy image, to latents.

        Args:
            request: A complete one.
            conditioning: As :meth:`encode` gives it.
            initial: As :meth:`encode_initial` gives it.
            start: Unit normal noise of the latents' shape.
            noise: Gives more noise to schedulers that add some on the way.

        Returns:
            Latents, float32 ``[images, channels, height, width]``, and the number of denoiser runs.
        """
        scheduler = scheduler_for(request, self.package.recipe)
        first = first_index(request, scheduler, self.package.recipe)
        stop = len(scheduler.timesteps)
        if self.refiner is not None:
            stop = max(first, scheduler.split_index(self.refiner.start))
        if initial is None or initial.latents is None or (initial.mask is not None and request.strength == 1):
            state = scheduler.start(start)
        else:
            state = scheduler.resume(scheduler.noised(initial.latents, start, first), first)
        latents = self._walk(
            request, scheduler, state, range(first, stop), conditioning, initial, start, noise
        )
        return latents, stop - first

    def _walk(
        self,
        request: Request,
        scheduler: Scheduler,
        state: State,
        places: range,
        conditioning: Conditioning,
        initial: InitialImage | None,
        start: Floats,
        noise: LatentNoise,
    ) -> Floats:
        """Go through a part of the scheduler's timesteps and return the latents at its end."""
        recipe = self.package.recipe
        count = len(places)
        self.listener(Started(task="denoise", label="making the image", total=count, unit="steps"))
        for done, place in enumerate(places, start=1):
            runs = recipe.denoiser_inputs(
                scheduler.model_input(state), scheduler.timesteps[place], conditioning, initial
            )
            when = f" at step {done} of {count}"
            outputs = tuple(self._run(self._denoiser, each, when)[recipe.prediction] for each in runs)
            guided = recipe.guide(outputs, conditioning, request.guidance_scale or 0.0)
            if self.preview is not None and self.preview.wanted(done) and done < count:
                # Not _run: latents on their way may be beyond what a float16 decoder takes.
                run = partial(run_fitting, self.runner, listener=self.listener)
                self.preview.show(scheduler.denoised(state, guided), recipe, run)
                self._done_with("decoder")
            fresh = noise.draw(start.shape[1:]) if scheduler.wants_noise(state) else None
            state = scheduler.advance(state, guided, fresh)
            if initial is not None and initial.mask is not None and recipe.blends_masks:
                state = replace(
                    state, sample=initial_image.blend(state.sample, initial, scheduler, start, place + 1)
                )
            self.listener(Advanced(task="denoise", done=done))
            if done == 1:
                self._announce(count - 1)
        self.listener(Finished(task="denoise", note=f"{count} step{'s' if count != 1 else ''}"))
        return state.sample

    def _announce(self, left: int) -> None:
        """Say how long the other steps will take where people would wonder: without a GPU."""
        usage = self.runner.usage().get(self._denoiser)
        seconds = 0.0 if usage is None else left * usage.run_seconds[-1]
        if self.runner.device.provider.target == "cpu" and seconds > _WORTH_SAYING_SECONDS:
            device = self.runner.device
            self.listener(Notice(text=f"The other {left} steps take {in_words(seconds)} on {device}."))

    def decode(self, latents: Floats) -> NDArray[np.uint8]:
        """Turn latents into pixels, an image at a time: the decoder needs the most memory of all.

        A float16 decoder that shows nothing is run in float32 on the same latents.

        Returns:
            uint8 ``[images, height, width, 3]``.
        """
        (decoder,) = self.package.with_role("decoder")
        rows = []
        for place in range(len(latents)):
            image = self._image(latents[place : place + 1])
            faults = find_blank(image)
            if faults and self._upcast_to_fp32(decoder, faults[0]):
                image = self._image(latents[place : place + 1])
            rows.append(image)
        return np.concatenate(rows)

    def flag(self, pixels: NDArray[np.uint8]) -> tuple[bool, ...]:
        """Ask the safety checker about each image; all are fine where the package has none."""
        checkers = self.package.with_role("safety")
        if not checkers:
            return (False,) * len(pixels)
        config = self.package.config("feature_extractor", "preprocessor_config.json")
        inputs = {
            "clip_input": extract(pixels, config),
            "images": pixels.astype(np.float32) / np.float32(255),
        }
        answers = self._run(checkers[0], inputs)["has_nsfw_concepts"]
        flagged = tuple(bool(answer) for answer in answers)
        for place in np.flatnonzero(flagged):
            self.listener(Notice(text=f"the safety checker objected to image {place + 1}: it is black."))
        return flagged

    def _run(self, submodel: str, inputs: Mapping[str, Array], when: str = "") -> dict[str, Array]:
        outputs = run_fitting(self.runner, submodel, inputs, listener=self.listener)
        fault = f"{submodel} gave numbers that are not finite{when}"
        if _not_finite(outputs) and self._upcast_to_fp32(submodel, fault):
            outputs = run_fitting(self.runner, submodel, inputs, listener=self.listener)
        if wrong := _not_finite(outputs):
            raise SetupError(
                "generate.not_finite",
                f"{fault} (in {wrong}), in float32 too.",
                f"run sdsetup verify {quoted(str(self.package.folder))}; if it passes, try --provider cpu.",
            )
        return outputs

    def _upcast_to_fp32(self, submodel: str, fault: str) -> bool:
        """Turn a submodel to float32 for a fault of it, and say so; False where it is float32 already."""
        if self.package.precision(submodel) == "fp32" or self.runner.usage()[submodel].upcast:
            return False
        self.runner.upcast_to_fp32(submodel)
        self.listener(
            Notice(
                text=f"{fault}: {submodel} runs in float32 from here on. "
                f"For a package that does so: sdsetup convert MODEL --keep-fp32 {submodel}"
            )
        )
        return True

    def _image(self, latents: Floats) -> NDArray[np.uint8]:
        return pixels_of(self.package.recipe.decode(self._run, latents))

    @cached_property
    def _prompts(self) -> PackagePrompts:
        return PackagePrompts(
            package=self.package,
            length=self.package.recipe.prompt_length,
            tokens=self.tokens,
            listener=self.listener,
        )

    @property
    def _denoiser(self) -> str:
        (name,) = self.package.with_role("denoiser")
        return name

    def _rehearse(self, request: Request, *roles: Role) -> Mapping[str, Mapping[str, int]]:
        """Return the sizes of a request's runs, or nothing where none of these roles opens ahead."""
        names = [name for role in roles for name in self.package.with_role(role)]
        if not any(self.runner.opens_ahead(name) for name in names):
            return {}
        self.runner.begin()
        return rehearse(self, request)

    def _open_ahead(self, sizes: Mapping[str, Mapping[str, int]], *roles: Role) -> None:
        """Let the runner open what comes later while it does what comes now, where that saves time."""
        for name in (name for role in roles for name in self.package.with_role(role)):
            if name in sizes and self.runner.opens_ahead(name):
                self.runner.open_ahead(name, sizes[name])

    def _done_with(self, role: Role) -> None:
        for name in self.package.with_role(role):
            self.runner.done_with(name)


def _not_finite(outputs: dict[str, Array]) -> str:
    """Name the first output that holds NaN or infinity; empty where none does."""
    return next((name for name, value in outputs.items() if not np.all(np.isfinite(value))), "")

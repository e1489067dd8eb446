"""Text to image over a package's submodels: numpy and ONNX Runtime alone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from conversions.events import Advanced, Finished, Listener, Notice, Started, ignore
from sdsetup.errors import SetupError, UsageError
from sdsetup.imaging import prompts
from sdsetup.imaging.blank_image import find_blank
from sdsetup.imaging.feature_extractor import extract
from sdsetup.imaging.latent_noise import LatentNoise
from sdsetup.imaging.schedulers import Floats, make_scheduler, name_of
from sdsetup.imaging.tokenizer import ClipTokenizer
from sdsetup.runtime.package import Package
from sdsetup.runtime.runner import Runner
from sdsetup.runtime.sessions import Array

# Source: Rombach et al. 2022, arXiv:2112.10752, appendix G: latents are scaled to unit variance.
_SD1_SCALING = 0.18215
_MOST_IMAGES = 64


@dataclass(frozen=True, kw_only=True)
class Request:
    """Everything that decides an image, given a package.

    Attributes:
        prompt: What to show.
        negative_prompt: What to keep away from.
        seed: Where the noise starts; image ``i`` of a batch uses ``seed + i``.
        steps: Scheduler steps.
        guidance_scale: How closely to follow the prompt; 1 or less turns guidance off.
        eta: Share of the training noise that DDIM adds back.
        width: In pixels; None takes the checkpoint's own.
        height: In pixels; None takes the checkpoint's own.
        images: Images in the batch.
        scheduler: One of ``sdsetup.schedulers.NAMES``; None takes the checkpoint's own.
    """

    prompt: str
    negative_prompt: str = ""
    seed: int = 0
    steps: int = 30
    guidance_scale: float = 7.5
    eta: float = 0.0
    width: int | None = None
    height: int | None = None
    images: int = 1
    scheduler: str | None = None


@dataclass(frozen=True, kw_only=True)
class GeneratedImages:
    """What a request gave.

    Attributes:
        pixels: uint8 ``[images, height, width, 3]``.
        flagged: For each image whether the safety checker objected; such an image is black.
        denoise_seconds: Time in the loop over the scheduler's steps.
        total_seconds: From the prompt to the pixels, opening submodels included.
        evaluations: UNet runs, each for the whole batch.
    """

    pixels: NDArray[np.uint8]
    flagged: tuple[bool, ...]
    denoise_seconds: float
    total_seconds: float
    evaluations: int


def complete(request: Request, package: Package) -> Request:
    """Fill in what a request leaves to the checkpoint, and refuse what cannot be done.

    Raises:
        UsageError: A value is out of range.
    """
    width, height = package.default_size
    request = replace(
        request,
        width=width if request.width is None else request.width,
        height=height if request.height is None else request.height,
        scheduler=request.scheduler or name_of(package.scheduler_config),
    )
    step = package.pixels_per_latent
    for name, side in (("width", request.width), ("height", request.height)):
        if side is None or side < 1 or side % step:
            below = max(step, (side or 0) // step * step)
            raise UsageError(
                "generate.size",
                f"--{name} {side} does not work: this package needs multiples of {step} pixels.",
                f"use --{name} {below} or --{name} {below + step}.",
            )
    if not 1 <= request.images <= _MOST_IMAGES:
        raise UsageError(
            "generate.images", f"--images {request.images} is out of range.", f"use 1 to {_MOST_IMAGES}."
        )
    if not 0 <= request.seed < 2**63:
        raise UsageError("generate.seed", f"--seed {request.seed} is out of range.", "use 0 to 2^63 - 1.")
    if not np.isfinite(request.guidance_scale):
        raise UsageError(
            "generate.guidance", f"--guidance-scale {request.guidance_scale} is no number.", "7.5 is usual."
        )
    make_scheduler(request.scheduler or "", package.scheduler_config, request.steps, eta=request.eta)
    return request


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """A package ready to make images.

    Attributes:
        package: Where the submodels and their configurations are.
        runner: Runs the submodels.
        listener: Hears of progress.
    """

    package: Package
    runner: Runner
    listener: Listener = ignore

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
        context = self.encode(request)
        self.runner.done_with("text_encoder")
        looping = perf_counter()
        latents, evaluations = self.denoise(request, context)
        denoise_seconds = perf_counter() - looping
        self.runner.done_with("unet")
        pixels = self.decode(latents)
        self.runner.done_with("vae_decoder")
        flagged = self.flag(pixels) if check_safety else (False,) * len(pixels)
        self.runner.done_with("safety_checker")
        return GeneratedImages(
            pixels=np.where(np.array(flagged)[:, None, None, None], np.uint8(0), pixels),
            flagged=flagged,
            denoise_seconds=denoise_seconds,
            total_seconds=perf_counter() - started,
            evaluations=evaluations,
        )

    def encode(self, request: Request) -> Floats:
        """Turn the prompts into what the UNet attends to.

        Returns:
            float32 ``[batch, tokens, hidden]``: the negative prompt's rows first, where guidance is on.
        """
        tokenizer = ClipTokenizer(folder=self.package.folder / "tokenizer", length=self._prompt_length())
        texts = [request.negative_prompt, request.prompt] if _guided(request) else [request.prompt]
        longest = max(len(prompts.encode(text, tokenizer).tokens) for text in texts)
        rows = []
        for text in texts:
            encoded = prompts.encode(text, tokenizer, at_least=longest)
            hidden = self._run("text_encoder", {"input_ids": encoded.tokens})["last_hidden_state"]
            rows.append(np.repeat(prompts.embed(hidden, encoded.weights), request.images, axis=0))
        return np.concatenate(rows)

    def denoise(self, request: Request, context: Floats) -> tuple[Floats, int]:
        """Walk from noise to latents.

        Returns:
            Latents, float32 ``[images, 4, height, width]``, and the number of UNet runs.
        """
        scheduler = make_scheduler(
            request.scheduler or "", self.package.scheduler_config, request.steps, eta=request.eta
        )
        noise = LatentNoise.of(request.seed, request.images)
        shape = self._latent_shape(request)
        state = scheduler.start(noise.draw(shape))
        count = len(scheduler.timesteps)
        self.listener(Started(task="denoise", label="making the image", total=count, unit="steps"))
        for place, timestep in enumerate(scheduler.timesteps):
            seen = scheduler.model_input(state)
            inputs: dict[str, Array] = {
                "sample": np.concatenate([seen, seen]) if _guided(request) else seen,
                "timestep": np.array([timestep], dtype=np.float32),
                "encoder_hidden_states": context,
            }
            output = self._run("unet", inputs, f" at step {place + 1} of {count}")["out_sample"]
            if _guided(request):
                away, towards = np.split(output, 2)
                output = away + np.float32(request.guidance_scale) * (towards - away)
            fresh = noise.draw(shape) if scheduler.wants_noise(state) else None
            state = scheduler.advance(state, output, fresh)
            self.listener(Advanced(task="denoise", done=place + 1))
        self.listener(Finished(task="denoise", note=f"{count} steps"))
        return state.sample, count

    def decode(self, latents: Floats) -> NDArray[np.uint8]:
        """Turn latents into pixels, an image at a time: the decoder needs the most memory of all.

        A float16 decoder that shows nothing is run in float32 on the same latents.

        Returns:
            uint8 ``[images, height, width, 3]``.
        """
        scaling = float(self.package.config("vae_decoder").get("scaling_factor", _SD1_SCALING))
        rows = []
        for place in range(len(latents)):
            scaled = latents[place : place + 1] / np.float32(scaling)
            image = self._image(scaled)
            faults = find_blank(image)
            if faults and self._upcast_to_fp32("vae_decoder", faults[0]):
                image = self._image(scaled)
            rows.append(image)
        return np.concatenate(rows)

    def flag(self, pixels: NDArray[np.uint8]) -> tuple[bool, ...]:
        """Ask the safety checker about each image; all are fine where the package has none."""
        if not self.package.has("safety_checker"):
            return (False,) * len(pixels)
        config = self.package.config("feature_extractor", "preprocessor_config.json")
        inputs = {
            "clip_input": extract(pixels, config),
            "images": pixels.astype(np.float32) / np.float32(255),
        }
        answers = self._run("safety_checker", inputs)["has_nsfw_concepts"]
        flagged = tuple(bool(answer) for answer in answers)
        for place in np.flatnonzero(flagged):
            self.listener(Notice(text=f"the safety checker objected to image {place + 1}: it is black."))
        return flagged

    def _run(self, submodel: str, inputs: dict[str, Array], when: str = "") -> dict[str, Array]:
        outputs = self.runner.run(submodel, inputs)
        fault = f"{submodel} gave numbers that are not finite{when}"
        if _not_finite(outputs) and self._upcast_to_fp32(submodel, fault):
            outputs = self.runner.run(submodel, inputs)
        if wrong := _not_finite(outputs):
            raise SetupError(
                "generate.not_finite",
                f"{fault} (in {wrong}), in float32 too.",
                f"run sdsetup verify {self.package.folder}; if it passes, try --provider cpu.",
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
        sample = self._run("vae_decoder", {"latent_sample": latents})["sample"]
        unit = np.clip(sample / np.float32(2) + np.float32(0.5), 0, 1)
        return (unit * np.float32(255)).round().astype(np.uint8).transpose(0, 2, 3, 1)

    def _prompt_length(self) -> int:
        return int(self.package.config("text_encoder").get("max_position_embeddings", 77))

    def _latent_shape(self, request: Request) -> tuple[int, int, int]:
        scale = self.package.pixels_per_latent
        channels = int(self.package.config("unet").get("in_channels", 4))
        return channels, (request.height or 0) // scale, (request.width or 0) // scale


def _not_finite(outputs: dict[str, Array]) -> str:
    """Name the first output that holds NaN or infinity; empty where none does."""
    return next((name for name, value in outputs.items() if not np.all(np.isfinite(value))), "")


def _guided(request: Request) -> bool:
    return request.guidance_scale > 1

"""Images with a transformer that learned flow matching: what such families share."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from conversions.families.shared.latent_recipe import LatentRecipe
from conversions.recipe import (
    Conditioning,
    Floats,
    GuidedPrompts,
    ImageSize,
    InitialImage,
    NoiseLevels,
    PromptEncoder,
    Run,
    Task,
    Tensors,
)


@dataclass(frozen=True, kw_only=True)
class FlowRecipe(LatentRecipe):
    """Text to image and image to image by flow matching, on latents packed to tokens."""

    native_side: ClassVar[int] = 1024
    patch: ClassVar[int] = 2
    prompt_length: ClassVar[int] = 512
    prediction: ClassVar[str] = "out_hidden_states"
    most_clip_skip: ClassVar[int] = 0
    distilled_steps: ClassVar[bool] = False
    weighs_words: ClassVar[bool] = False
    blends_masks: ClassVar[bool] = False
    tasks: ClassVar[frozenset[Task]] = frozenset({"text-to-image", "image-to-image"})

    @property
    def channels(self) -> int:
        """Of a latent image."""
        return int(self.vae.get("latent_channels") or 4)

    @property
    def native(self) -> ImageSize:
        """The size of the images that the checkpoint was trained on."""
        return ImageSize(width=self.native_side, height=self.native_side)

    @property
    def size_multiple(self) -> int:
        """One patch's width in pixels."""
        return self.patch * self.latents.downscale

    def grid(self, size: ImageSize) -> tuple[int, int]:
        """Return the rows and columns of an image's patches."""
        _, height, width = self.latents.shape(size)
        return height // self.patch, width // self.patch

    def noise_levels(self, steps: int, size: ImageSize) -> NoiseLevels:
        """Return levels that fall from one in equal steps, before they are shifted.

        Source: ``sigmas`` of diffusers' pipelines of Flux, Flux 2 and Z-Image.
        """
        rows, columns = self.grid(size)
        sigmas = tuple(float(level) for level in np.linspace(1.0, 1 / max(steps, 1), steps))
        return NoiseLevels(image_tokens=rows * columns, mu=self.shift(steps, size), sigmas=sigmas)

    def shift(self, steps: int, size: ImageSize) -> float | None:  # noqa: ARG002 - for those who need them
        """Return the log of the shift; None takes the scheduler configuration's line."""
        return None

    @abstractmethod
    def guided(self, guidance_scale: float) -> bool:
        """Say whether the denoiser also sees the negative prompt."""

    @abstractmethod
    def condition(self, run: Run, prompts: PromptEncoder, request: GuidedPrompts, text: str) -> Tensors:
        """Turn one prompt into the denoiser's inputs beside latents and time."""

    def combine(self, towards: Floats, away: Floats, guidance_scale: float) -> Floats:
        """Apply classifier-free guidance to two outputs of the denoiser.

        Source: Ho and Salimans 2022, arXiv:2207.12598, equation 6 in the form that diffusers uses.
        """
        guided: Floats = away + np.float32(guidance_scale) * (towards - away)
        return guided

    def encode(self, run: Run, prompts: PromptEncoder, request: GuidedPrompts) -> Conditioning:
        """Turn the prompts into inputs of one run each: they may be of different lengths."""
        texts = [request.prompt]
        if self.guided(request.guidance_scale):
            texts.append(request.negative_prompt)
        runs = tuple(self.condition(run, prompts, request, text) for text in texts)
        return Conditioning(size=request.size, runs=runs)

    @abstractmethod
    def time(self, timestep: float) -> np.float32:
        """Return what the denoiser is told of a timestep."""

    @abstractmethod
    def pack(self, latents: Floats) -> Floats:
        """Turn latents ``[images, channels, height, width]`` into tokens ``[images, tokens, width]``."""

    @abstractmethod
    def unpack(self, tokens: Floats, size: ImageSize) -> Floats:
        """Undo :meth:`pack`."""

    def denoiser_inputs(
        self, latents: Floats, timestep: float, conditioning: Conditioning, initial: InitialImage | None
    ) -> tuple[Tensors, ...]:
        """Put the denoiser's inputs together; an initial image is in the latents alone."""
        del initial
        shared: Tensors = {
            "hidden_states": self.pack(latents),
            "timestep": np.array([self.time(timestep)], dtype=np.float32),
        }
        return tuple({**shared, **inputs} for inputs in conditioning.runs)

    def guide(self, outputs: tuple[Floats, ...], conditioning: Conditioning, guidance_scale: float) -> Floats:
        """Reduce the outputs of one or two runs to the velocity of the latents."""
        towards, *others = outputs
        tokens = self.combine(towards, others[0], guidance_scale) if others else towards
        return self.unpack(tokens, conditioning.size)


def chat(*, thinking: bool) -> tuple[str, str]:
    """Return what stands before and after a prompt, the first message of a conversation with Qwen3.

    Args:
        thinking: Whether the model may think before it answers; else an empty thought is put in its mouth.

    Source: ``chat_template`` of Qwen3's tokenizer_config.json for one message of a user, with
    ``add_generation_prompt``. A checkpoint's own template is not run.
    """
    answer = "" if thinking else "<think>\n\n</think>\n\n"
    return "<|im_start|>user\n", f"<|im_end|>\n<|im_start|>assistant\n{answer}"

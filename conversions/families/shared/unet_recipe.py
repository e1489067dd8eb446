"""Images with a U-Net that attends to CLIP's text states: what Stable Diffusion's families share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from conversions.errors import ConversionError
from conversions.families.shared.latent_recipe import LatentRecipe
from conversions.graph_kind import Config
from conversions.recipe import (
    Conditioning,
    Defaults,
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

_DISTILLED_SCHEDULERS = frozenset({"LCMScheduler", "TCDScheduler"})
_DISTILLED_STEPS = 4
_USUAL_STEPS = 30
_LATENT_CHANNELS = 4
_INPAINTING_CHANNELS = 9
_PROMPT_LENGTH = 77
_TEXT_LAYERS = 12
# Source: diffusers' get_guidance_scale_embedding.
_GUIDANCE_UNITS = 1000.0
_LONGEST_PERIOD = 10_000.0


@dataclass(frozen=True, kw_only=True)
class UNetRecipe(LatentRecipe):
    """Text to image, image to image and inpainting, as diffusers' Stable Diffusion pipelines do it."""

    guidance_scale: ClassVar[float] = 7.5
    strength: ClassVar[Mapping[Task, float]] = {"image-to-image": 0.8, "inpainting": 1.0}
    latent_side: ClassVar[int] = 64
    prediction: ClassVar[str] = "out_sample"

    @property
    def unet(self) -> Config:
        """The U-Net's configuration."""
        return self.config_of("unet")

    @property
    def channels(self) -> int:
        """Of a latent image."""
        return int(self.unet.get("out_channels") or _LATENT_CHANNELS)

    @property
    def unsupported(self) -> str:
        """Why no images can be made; a U-Net with other inputs belongs to another pipeline."""
        latent, channels = self.latents.channels, self._channels
        if channels in (latent, _INPAINTING_CHANNELS):
            return ""
        return (
            f"The U-Net has {channels} input channels; this pipeline makes images with {latent}, "
            f"or with {_INPAINTING_CHANNELS} for inpainting."
        )

    @property
    def tasks(self) -> frozenset[Task]:
        """What the U-Net's input channels allow."""
        if self._channels == _INPAINTING_CHANNELS:
            return frozenset({"inpainting"})
        return frozenset({"text-to-image", "image-to-image", "inpainting"})

    @property
    def defaults(self) -> Defaults:
        """What images are when a request does not say."""
        width, height = self.native_size
        distilled = self._distilled
        return Defaults(
            width=width,
            height=height,
            steps=_DISTILLED_STEPS if distilled else _USUAL_STEPS,
            guidance_scale=1.0 if distilled and not self._guidance_width else self.guidance_scale,
            strength=self.strength,
        )

    @property
    def native(self) -> ImageSize:
        """The size of the images that the checkpoint was trained on."""
        width, height = self.native_size
        return ImageSize(width=width, height=height)

    @property
    def native_size(self) -> tuple[int, int]:
        """Width and height, in pixels, of the images that the checkpoint was trained on."""
        sample = self.unet.get("sample_size") or self.latent_side
        sides = (sample, sample) if isinstance(sample, int) else tuple(sample)
        if len(sides) != 2 or not all(isinstance(side, int) for side in sides):
            raise ConversionError(
                "config.invalid",
                f"The U-Net's config.json says sample_size = {sample}; it must be a side, or two of them.",
                "Correct this field, or download the file again.",
            )
        height, width = sides
        return int(width) * self.latents.downscale, int(height) * self.latents.downscale

    @property
    def size_multiple(self) -> int:
        """One latent's width in pixels."""
        return self.latents.downscale

    @property
    def _channels(self) -> int:
        return int(self.unet.get("in_channels") or _LATENT_CHANNELS)

    @property
    def _guidance_width(self) -> int:
        """Width of the guidance embedding that a distilled U-Net reads; 0 for other U-Nets."""
        return int(self.unet.get("time_cond_proj_dim") or 0)

    @property
    def _distilled(self) -> bool:
        """Whether the scheduler's configuration is one of a model made for few steps.

        Latent consistency models have schedulers of their own; SDXL Turbo and Lightning step with Euler over
        trailing timesteps, which other models do only with zero terminal signal.
        """
        scheduler = self.configs.scheduler
        name = str(scheduler.get("_class_name", ""))
        euler = name in ("EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler")
        return name in _DISTILLED_SCHEDULERS or (
            euler
            and scheduler.get("timestep_spacing") == "trailing"
            and scheduler.get("prediction_type", "epsilon") == "epsilon"
            and not scheduler.get("rescale_betas_zero_snr")
        )

    def sizes(self, role: str, size: ImageSize) -> Mapping[str, int]:
        """Return the size of each free dimension of a submodel's inputs, by the submodel's role."""
        match role:
            case "text":
                return {"batch": size.images, "sequence": self.prompt_length}
            case "denoiser":
                latents = self.latent_sizes(size)
                return {**latents, "batch": 2 * size.images, "sequence": self.prompt_length}
            case _:
                return self.autoencoder_sizes(role, size)

    @property
    def prompt_length(self) -> int:
        """Tokens that the text encoder takes at once."""
        config = next(
            (each for name, each in self.configs.components.items() if name.startswith("text_encoder")), {}
        )
        return int(config.get("max_position_embeddings") or _PROMPT_LENGTH)

    @property
    def most_clip_skip(self) -> int:
        """The most layers that the text encoders can leave out: one is left."""
        layers = [
            int(each.get("num_hidden_layers") or _TEXT_LAYERS)
            for name, each in self.configs.components.items()
            if name.startswith("text_encoder")
        ]
        return min(layers, default=1) - 1

    @property
    def distilled_steps(self) -> bool:
        """Whether the U-Net is a latent consistency model's, which reads the guidance scale."""
        return bool(self._guidance_width)

    def noise_levels(self, steps: int, size: ImageSize) -> NoiseLevels | None:  # noqa: ARG002 - the protocol's
        """None: noise is added to the image, not mixed with it."""
        return None

    @property
    def blends_masks(self) -> bool:
        """Whether the U-Net does not read the mask itself."""
        return self._channels != _INPAINTING_CHANNELS

    def guided(self, guidance_scale: float) -> bool:
        """Say whether the U-Net sees each image twice; one that reads the guidance scale does not."""
        return guidance_scale > 1 and not self._guidance_width

    def encode(self, run: Run, prompts: PromptEncoder, request: GuidedPrompts) -> Conditioning:
        """Turn the prompts into the states that the U-Net attends to, ``[rows, tokens, width]``."""
        texts = self.texts(request)
        longest = max(len(prompts.encode(text, "tokenizer").tokens) for text in texts)
        rows = []
        for text in texts:
            encoded = prompts.encode(text, "tokenizer", at_least=longest)
            hidden = run("text_encoder", {"input_ids": encoded.tokens})["last_hidden_state"]
            rows.append(np.repeat(prompts.embed(hidden, encoded), request.size.images, axis=0))
        return self.conditioning(request, {"encoder_hidden_states": np.concatenate(rows)})

    def conditioning(self, request: GuidedPrompts, inputs: Tensors) -> Conditioning:
        """Add what the guidance scale itself becomes for a U-Net that reads it."""
        if self._guidance_width:
            embedding = guidance_embedding(request.guidance_scale - 1, self._guidance_width)
            inputs = {**inputs, "timestep_cond": np.repeat(embedding, request.size.images, axis=0)}
        return Conditioning(size=request.size, runs=(inputs,), branches=len(self.texts(request)))

    def denoiser_inputs(
        self, latents: Floats, timestep: float, conditioning: Conditioning, initial: InitialImage | None
    ) -> tuple[Tensors, ...]:
        """Put the U-Net's inputs together; an inpainting U-Net also sees the mask and the masked image.

        Source: StableDiffusionInpaintPipeline.__call__ of diffusers: latents, mask, masked image latents.
        """
        if self._channels == _INPAINTING_CHANNELS:
            assert initial is not None
            assert initial.mask is not None
            assert initial.masked_latents is not None
            mask = np.broadcast_to(initial.mask, (len(latents), *initial.mask.shape[1:]))
            latents = np.concatenate([latents, mask, initial.masked_latents], axis=1)
        latent_inputs: Tensors = {
            "sample": np.concatenate([latents] * conditioning.branches),
            "timestep": np.array([timestep], dtype=np.float32),
        }
        return tuple({**latent_inputs, **inputs} for inputs in conditioning.runs)


def guidance_embedding(guidance: float, width: int) -> Floats:
    """Return sinusoids of a guidance scale, float32 ``[1, width]``.

    Source: diffusers' ``get_guidance_scale_embedding``; Song et al. 2023, arXiv:2310.04378, section 4.2.
    """
    half = width // 2
    periods = np.exp(np.arange(half, dtype=np.float32) * -np.float32(np.log(_LONGEST_PERIOD) / (half - 1)))
    angles = np.float32(guidance * _GUIDANCE_UNITS) * periods
    embedding = np.concatenate([np.sin(angles), np.cos(angles), np.zeros(width % 2, np.float32)])
    return embedding[None].astype(np.float32)

"""Images from latents: the autoencoder, both prompts and guidance, as most of diffusers' pipelines do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from conversions.family import PipelineConfigs
from conversions.graph_kind import Config
from conversions.recipe import (
    Conditioning,
    Floats,
    GuidedPrompts,
    ImageSize,
    InitialImage,
    LatentSpace,
    Run,
    Tensors,
)

# Source: the default of AutoencoderKL's scaling_factor; Rombach et al. 2022, arXiv:2112.10752, appendix G.
_SCALING = 0.18215


@dataclass(frozen=True, kw_only=True)
class LatentRecipe(ABC):
    """What recipes share that denoise latents with classifier-free guidance.

    Attributes:
        configs: The pipeline's small files.
    """

    configs: PipelineConfigs

    @property
    @abstractmethod
    def channels(self) -> int:
        """Of a latent image."""

    def config_of(self, component: str) -> Config:
        """Return a component's configuration; empty where there is none."""
        return self.configs.components.get(component, {})

    @property
    def weighs_words(self) -> bool:
        """Whether brackets weigh words: the states of these text encoders can be weighed."""
        return True

    @property
    def reads_guidance(self) -> bool:
        """Whether the guidance scale changes anything."""
        return True

    @property
    def blends_masks(self) -> bool:
        """Whether a mask is applied to the latents, since the denoiser does not read it."""
        return True

    @property
    def distilled_steps(self) -> bool:
        """Whether the denoiser was distilled to a few steps of its own."""
        return False

    @property
    def own_scheduler(self) -> str:
        """Class of the one scheduler that can step the model; empty where any of its kind can."""
        return ""

    @property
    def largest_side(self) -> int | None:
        """Width and height in pixels are at most this; None where nothing limits them."""
        return None

    @property
    def vae(self) -> Config:
        """The autoencoder's configuration."""
        return self.config_of("vae")

    @property
    def latents(self) -> LatentSpace:
        """The space that the denoiser works in."""
        blocks = self.vae.get("encoder_block_out_channels") or self.vae.get("block_out_channels") or (1,) * 4
        scaling = self.vae.get("scaling_factor")
        return LatentSpace(
            channels=self.channels,
            downscale=int(2 ** (len(blocks) - 1)),
            scaling=float(scaling if scaling is not None else self._usual_scaling),
            shift=float(self.vae.get("shift_factor") or 0.0),
        )

    @property
    def _usual_scaling(self) -> float:
        """The scaling factor of an autoencoder whose configuration has none; TAESD needs none."""
        return 1.0 if "encoder_block_out_channels" in self.vae else _SCALING

    @property
    def scheduler_config(self) -> Mapping[str, Any]:
        """The scheduler's configuration, as it is stored."""
        return self.configs.scheduler

    def latent_sizes(self, size: ImageSize) -> dict[str, int]:
        """Return the sizes of a batch of latents, by dimension."""
        _, height, width = self.latents.shape(size)
        return {"batch": size.images, "height": height, "width": width}

    def autoencoder_sizes(self, role: str, size: ImageSize) -> dict[str, int]:
        """Return the size of each free dimension of what the encoder or the decoder is given."""
        if role == "decoder":
            return self.latent_sizes(size)
        return {"batch": size.images, "height": size.height, "width": size.width}

    def guided(self, guidance_scale: float) -> bool:
        """Say whether the denoiser sees each image twice."""
        return guidance_scale > 1

    def texts(self, request: GuidedPrompts) -> tuple[str, ...]:
        """Return the prompts to encode: the negative one first, where there is guidance."""
        if self.guided(request.guidance_scale):
            return request.negative_prompt, request.prompt
        return (request.prompt,)

    def denoiser_inputs(
        self, latents: Floats, timestep: float, conditioning: Conditioning, initial: InitialImage | None
    ) -> tuple[Tensors, ...]:
        """Put a transformer's inputs together; both prompts are rows of one batch."""
        del initial
        own = {
            "hidden_states": np.concatenate([latents] * conditioning.branches),
            "timestep": np.array([timestep], dtype=np.float32),
        }
        return tuple({**own, **inputs} for inputs in conditioning.runs)

    def guide(self, outputs: tuple[Floats, ...], conditioning: Conditioning, guidance_scale: float) -> Floats:
        """Apply classifier-free guidance.

        Source: Ho and Salimans 2022, arXiv:2207.12598, equation 6 in the form that diffusers uses.
        """
        (output,) = outputs
        if conditioning.branches == 1:
            return output
        away, towards = np.split(output, 2)
        guided: Floats = away + np.float32(guidance_scale) * (towards - away)
        return guided

    def decode(self, run: Run, latents: Floats) -> Floats:
        """Turn latents into pixels, ``[images, 3, height, width]``, -1 to 1."""
        return run("vae_decoder", {"latent_sample": self.latents.decode(latents)})["sample"]

    def encode_image(self, run: Run, pixels: Floats, noise: Floats) -> Floats:
        """Turn pixels, ``[images, 3, height, width]`` from -1 to 1, into latents.

        An AutoencoderKL gives mean and log variance, of which a sample is taken; AutoencoderTiny gives
        latents.
        """
        outputs = run("vae_encoder", {"sample": pixels})
        encoded = outputs.get("latents")
        return self.latents.encode(
            _sampled(outputs["latent_parameters"], noise) if encoded is None else encoded
        )


def _sampled(parameters: Floats, noise: Floats) -> Floats:
    """Take a sample of the encoder's distribution.

    Args:
        parameters: Mean and log variance, ``[images, 2 * channels, height, width]``.
        noise: Unit normal, ``[images, channels, height, width]``.

    Source: DiagonalGaussianDistribution of diffusers.
    """
    mean, logvar = np.split(parameters, 2, axis=1)
    deviation = np.exp(np.float32(0.5) * np.clip(logvar, -30, 20))
    latents: Floats = mean + deviation * noise
    return latents

"""PixArt-Sigma and PixArt-alpha: T5 reads the prompt, a transformer denoises Stable Diffusion's latents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from conversions.families.shared.latent_recipe import LatentRecipe
from conversions.families.stable_diffusion_3 import T5_XXL
from conversions.families.stable_diffusion_xl import VAE_PARTS
from conversions.family import Family, Part, PipelineConfigs, ShippedGraph
from conversions.graph_kind import Config
from conversions.recipe import (
    Conditioning,
    Defaults,
    Floats,
    GuidedPrompts,
    ImageSize,
    PromptEncoder,
    Run,
    Task,
    Tensors,
)
from conversions.submodels import pixart_transformer as denoiser
from conversions.submodels.pixart_transformer import PIXART_TRANSFORMER
from conversions.submodels.t5_encoder import T5_ENCODER_MASKED

_ALPHA = "PixArtAlphaPipeline"
# Source: the defaults of __call__ of diffusers' PixArtSigmaPipeline and PixArtAlphaPipeline.
_LENGTH, _LENGTH_OF_ALPHA = 300, 120
_STEPS, _GUIDANCE = 20, 4.5
# Source: the model card of PixArt-alpha/PixArt-LCM-XL-2-1024-MS.
_LCM_STEPS = 4


@dataclass(frozen=True, kw_only=True)
class PixArtRecipe(LatentRecipe):
    """Text to image as diffusers' PixArtSigmaPipeline and PixArtAlphaPipeline do it.

    Images have the size that is asked for: diffusers makes them in the nearest of the sizes of training, and
    resizes them. Diffusers has no image to image and no inpainting for PixArt; here they go as with Stable
    Diffusion: from the noised latents of an image, a mask is applied to the latents after each step.
    """

    prediction: ClassVar[str] = "out_hidden_states"
    most_clip_skip: ClassVar[int] = 0
    weighs_words: ClassVar[bool] = False
    tasks: ClassVar[frozenset[Task]] = frozenset({"text-to-image", "image-to-image", "inpainting"})
    strength: ClassVar[Mapping[Task, float]] = {"image-to-image": 0.6, "inpainting": 0.6}

    @property
    def transformer(self) -> Config:
        """The denoiser's configuration."""
        return self.config_of("transformer")

    @property
    def channels(self) -> int:
        """Of a latent image."""
        return int(denoiser.value_of(self.transformer, "in_channels"))

    @property
    def unsupported(self) -> str:
        """Why no images can be made with the checkpoint."""
        return denoiser.unsupported(self.transformer)

    @property
    def prompt_length(self) -> int:
        """Tokens of a prompt, its end included."""
        return _LENGTH_OF_ALPHA if self.configs.index.get("_class_name") == _ALPHA else _LENGTH

    @property
    def native(self) -> ImageSize:
        """The size of the images that the checkpoint was trained on."""
        side = denoiser.side_of(self.transformer) * self.latents.downscale
        return ImageSize(width=side, height=side)

    @property
    def defaults(self) -> Defaults:
        """What images are when a request does not say.

        A latent consistency model makes few steps without guidance.
        """
        lcm = self.configs.scheduler.get("_class_name") == "LCMScheduler"
        return Defaults(
            width=self.native.width,
            height=self.native.height,
            steps=_LCM_STEPS if lcm else _STEPS,
            guidance_scale=0.0 if lcm else _GUIDANCE,
            strength=self.strength,
        )

    @property
    def size_multiple(self) -> int:
        """One patch's width in pixels."""
        return self.latents.downscale * int(denoiser.value_of(self.transformer, "patch_size"))

    def grid(self, size: ImageSize) -> tuple[int, int]:
        """Return the rows and columns of an image's patches."""
        return size.height // self.size_multiple, size.width // self.size_multiple

    def noise_levels(self, steps: int, size: ImageSize) -> None:
        """None: noise is added to the image, not mixed with it."""
        del steps, size

    def sizes(self, role: str, size: ImageSize) -> Mapping[str, int]:
        """Return the size of each free dimension of a submodel's inputs, by the submodel's role."""
        rows, columns = self.grid(size)
        match role:
            case "text":
                return {"batch": 1, "tokens": self.prompt_length}
            case "denoiser":
                words = {"sequence": self.prompt_length, "tokens": rows * columns}
                return {**self.latent_sizes(size), "batch": 2 * size.images, **words}
            case _:
                return self.autoencoder_sizes(role, size)

    def encode(self, run: Run, prompts: PromptEncoder, request: GuidedPrompts) -> Conditioning:
        """Turn the prompts into states with the mask of their padding, and the image's size into positions.

        Source: ``encode_prompt`` of diffusers' PixArtSigmaPipeline; ``__call__`` of PixArtAlphaPipeline for
        the conditions on the image's size.
        """
        texts, size = self.texts(request), request.size
        states, masks = [], []
        for text in texts:
            tokens = prompts.tokenize(cleaned(text), "tokenizer", length=self.prompt_length)
            encoder_inputs = {"input_ids": tokens.ids, "attention_mask": tokens.mask}
            found = run("text_encoder", encoder_inputs)["last_hidden_state"]
            states.append(np.repeat(found, size.images, axis=0))
            masks.append(np.repeat(tokens.mask, size.images, axis=0))
        inputs: Tensors = {
            "encoder_hidden_states": np.concatenate(states),
            "encoder_attention_mask": np.concatenate(masks),
            "pos_embed": denoiser.position_table(self.transformer, *self.grid(size)),
        }
        if denoiser.reads_size(self.transformer):
            inputs["resolution"] = np.array([[size.height, size.width]], dtype=np.float32)
            inputs["aspect_ratio"] = np.array([[size.height / size.width]], dtype=np.float32)
        return Conditioning(size=size, runs=(inputs,), branches=len(texts))

    def guide(self, outputs: tuple[Floats, ...], conditioning: Conditioning, guidance_scale: float) -> Floats:
        """Apply classifier-free guidance, and leave the learned variance out, which no sampler reads."""
        return super().guide(outputs, conditioning, guidance_scale)[:, : self.channels]


def cleaned(prompt: str) -> str:
    """Return a prompt as the model reads it: in small letters.

    Source: ``_text_preprocessing`` of diffusers' PixArtSigmaPipeline without ftfy and Beautiful Soup. With
    them it also takes out addresses, markup, file names and long numbers.
    """
    return prompt.lower().strip()


def recipe(configs: PipelineConfigs) -> PixArtRecipe:
    """Return how images are made with a checkpoint of this family."""
    return PixArtRecipe(configs=configs)


# Source: convert_pixart_sigma_to_diffusers.py of diffusers; what differs by size is not in the graph.
SIGMA: Config = {"caption_channels": 4096, "use_additional_conditions": False}
# Source: convert_pixart_alpha_to_diffusers.py: at 1024 pixels the denoiser is told the image's size.
ALPHA_1024: Config = {"caption_channels": 4096, "sample_size": 128}

FAMILY = Family(
    name="pixart",
    title="PixArt",
    pipelines=("PixArtSigmaPipeline", _ALPHA),
    parts=(
        Part(name="text_encoder", component="text_encoder", kinds=(T5_ENCODER_MASKED,), role="text"),
        Part(name="transformer", component="transformer", kinds=(PIXART_TRANSFORMER,), role="denoiser"),
        *VAE_PARTS,
    ),
    metadata=("scheduler", "tokenizer"),
    tokenizers=("tokenizer",),
    recipe=recipe,
    # Their autoencoders have the graphs of Stable Diffusion's.
    shipped=(
        ShippedGraph(label="PixArt", kind=T5_ENCODER_MASKED, config=T5_XXL),
        ShippedGraph(label="PixArt-Sigma", kind=PIXART_TRANSFORMER, config=SIGMA),
        ShippedGraph(label="PixArt-alpha at 1024 pixels", kind=PIXART_TRANSFORMER, config=ALPHA_1024),
    ),
)

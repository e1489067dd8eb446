"""The refiner of Stable Diffusion XL: one text encoder, and an aesthetic score among its conditions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from conversions.families.shared import original_layout as original
from conversions.families.shared.adapted_components import ADAPTED_TEXT_2, ADAPTED_UNET
from conversions.families.shared.unet_structure import differences, mismatch
from conversions.families.stable_diffusion_xl import (
    PIPELINES,
    SECOND_TEXT_ENCODER,
    VAE_PARTS,
    XLRecipe,
    small_files,
)
from conversions.family import Family, Part, PipelineConfigs, ShippedGraph
from conversions.graph_kind import Config
from conversions.recipe import Floats, ImageSize, Task
from conversions.single_file_layout import FileFacts, SingleFileLayout, SmallFiles
from conversions.submodels.unet import UNET_REFINER
from conversions.weights.expression import Tensors

# Source: the defaults of StableDiffusionXLImg2ImgPipeline.__call__ in diffusers.
_AESTHETIC_SCORE = 6.0
_NEGATIVE_AESTHETIC_SCORE = 2.5


@dataclass(frozen=True, kw_only=True)
class RefinerRecipe(XLRecipe):
    """Images with the refiner, which usually goes on from the base model's latents."""

    encoders: ClassVar[tuple[tuple[str, str], ...]] = (("text_encoder_2", "tokenizer_2"),)

    @property
    def tasks(self) -> frozenset[Task]:
        """What diffusers has the refiner do: it starts from an image, or from a base model's latents."""
        return super().tasks - {"text-to-image"}

    def time_ids(self, size: ImageSize, *, negative: bool) -> Floats:
        """Return the conditions on size, float32 ``[1, 5]``: original height and width, crop, score.

        Source: ``_get_add_time_ids`` of diffusers' StableDiffusionXLImg2ImgPipeline.
        """
        score = _NEGATIVE_AESTHETIC_SCORE if negative else _AESTHETIC_SCORE
        return np.array([[size.height, size.width, 0, 0, score]], np.float32)


def recipe(configs: PipelineConfigs) -> RefinerRecipe:
    """Return how images are made with a checkpoint of this family."""
    return RefinerRecipe(configs=configs)


def _matches(configs: PipelineConfigs) -> bool:
    return bool(configs.index.get("requires_aesthetics_score"))


# Source: the config.json files of stabilityai/stable-diffusion-xl-refiner-1.0.
REFINER_UNET: Config = {
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "attention_head_dim": [6, 12, 24, 24],
    "block_out_channels": [384, 768, 1536, 1536],
    "cross_attention_dim": 1280,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
    "projection_class_embeddings_input_dim": 2560,
    "transformer_layers_per_block": 4,
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "use_linear_projection": True,
}


def _recognise(unet: Tensors) -> tuple[str, ...]:
    return differences(unet, REFINER_UNET)


def _small_files(unet: Tensors, facts: FileFacts) -> SmallFiles:
    del unet
    return small_files(
        "StableDiffusionXLImg2ImgPipeline",
        REFINER_UNET,
        facts,
        first=False,
        force_zeros_for_empty_prompt=False,
        requires_aesthetics_score=True,
    )


FAMILY = Family(
    name="stable-diffusion-xl-refiner",
    title="Stable Diffusion XL refiner",
    pipelines=PIPELINES,
    parts=(
        SECOND_TEXT_ENCODER,
        Part(name="unet", component="unet", kinds=(UNET_REFINER,), role="denoiser"),
        *VAE_PARTS,
    ),
    metadata=("scheduler", "tokenizer_2"),
    tokenizers=("tokenizer_2",),
    recipe=recipe,
    adapted=(ADAPTED_TEXT_2, ADAPTED_UNET),
    matches=_matches,
    single_file=SingleFileLayout(
        components=(
            original.openclip_in_file("text_encoder_2", "conditioner.embedders.0.model.", projected=True),
            original.UNET_IN_FILE,
            original.VAE_IN_FILE,
        ),
        denoiser="unet",
        recognise=_recognise,
        differs=mismatch,
        small_files=_small_files,
    ),
    shipped=(ShippedGraph(label="Stable Diffusion XL refiner", kind=UNET_REFINER, config=REFINER_UNET),),
)

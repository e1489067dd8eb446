"""Stable Diffusion XL: base, inpainting, and checkpoints distilled or fine-tuned from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from conversions.families.shared import original_layout as original
from conversions.families.shared.adapted_components import ADAPTED_TEXT, ADAPTED_TEXT_2, ADAPTED_UNET
from conversions.families.shared.clip_files import tokenizer_files
from conversions.families.shared.clip_prompts import states_before_last
from conversions.families.shared.unet_recipe import UNetRecipe
from conversions.families.shared.unet_structure import differences, mismatch, structure_of_file
from conversions.families.stable_diffusion import VAE
from conversions.family import Family, Part, PipelineConfigs, ShippedGraph
from conversions.graph_kind import Config
from conversions.recipe import (
    Conditioning,
    Floats,
    GuidedPrompts,
    ImageSize,
    PromptEncoder,
    Run,
    Task,
)
from conversions.single_file_layout import FileFacts, SingleFileLayout, SmallFiles
from conversions.submodels.clip_text import CLIP_TEXT_LAYERS, CLIP_TEXT_PROJECTED
from conversions.submodels.tiny_vae import TINY_DECODER, TINY_ENCODER
from conversions.submodels.unet import UNET
from conversions.submodels.vae import DECODER, ENCODER
from conversions.weights.expression import Tensors

PIPELINES = (
    "StableDiffusionXLPipeline",
    "StableDiffusionXLImg2ImgPipeline",
    "StableDiffusionXLInpaintPipeline",
    "ORTStableDiffusionXLPipeline",
)
SECOND_TEXT_ENCODER = Part(
    name="text_encoder_2", component="text_encoder_2", kinds=(CLIP_TEXT_PROJECTED,), role="text"
)
VAE_PARTS = (
    Part(name="vae_encoder", component="vae", kinds=(ENCODER, TINY_ENCODER), role="encoder"),
    Part(name="vae_decoder", component="vae", kinds=(DECODER, TINY_DECODER), role="decoder"),
)


@dataclass(frozen=True, kw_only=True)
class XLRecipe(UNetRecipe):
    """Images with Stable Diffusion XL: two text encoders, and conditions on the image's size."""

    guidance_scale: ClassVar[float] = 5.0
    strength: ClassVar[Mapping[Task, float]] = {"image-to-image": 0.3, "inpainting": 0.9999}
    latent_side: ClassVar[int] = 128
    encoders: ClassVar[tuple[tuple[str, str], ...]] = (
        ("text_encoder", "tokenizer"),
        ("text_encoder_2", "tokenizer_2"),
    )
    """Folders of the text encoders and of their tokenizers, in the order in which their states are joined."""

    @property
    def most_clip_skip(self) -> int:
        """The most layers that the text encoders can leave out, beside the last, which is never used."""
        return max(super().most_clip_skip - 1, 0)

    def encode(self, run: Run, prompts: PromptEncoder, request: GuidedPrompts) -> Conditioning:
        """Turn the prompts into states ``[rows, tokens, width]``, a pooled state and size conditions.

        Source: ``encode_prompt`` of diffusers' StableDiffusionXLPipeline: the states before the last layer of
        both encoders side by side; the pooled state is the last encoder's.
        """
        longest = max(
            len(prompts.encode(text, tokenizer).tokens)
            for text in self.texts(request)
            for _, tokenizer in self.encoders
        )
        states, pooled, times = [], [], []
        for place, text in enumerate(self.texts(request)):
            negative = place == 0 and self.guided(request.guidance_scale)
            hidden, summaries = states_before_last(
                run, prompts, text, self.encoders, self.configs.components,
                chunks=longest, skip=request.clip_skip,
            )  # fmt: skip
            summary = summaries[-1] if summaries else np.zeros((1, 0), np.float32)
            if negative and not text and self.configs.index.get("force_zeros_for_empty_prompt"):
                hidden, summary = np.zeros_like(hidden), np.zeros_like(summary)
            states.append(np.repeat(hidden, request.size.images, axis=0))
            pooled.append(np.repeat(summary, request.size.images, axis=0))
            times.append(
                np.repeat(self.time_ids(request.size, negative=negative), request.size.images, axis=0)
            )
        return self.conditioning(
            request,
            {
                "encoder_hidden_states": np.concatenate(states),
                "text_embeds": np.concatenate(pooled),
                "time_ids": np.concatenate(times),
            },
        )

    def time_ids(self, size: ImageSize, *, negative: bool) -> Floats:
        """Return the conditions on size, float32 ``[1, 6]``: original height and width, crop, target size.

        Source: Podell et al. 2023, arXiv:2307.01952, section 2.2; ``_get_add_time_ids`` of diffusers.
        """
        del negative
        return np.array([[size.height, size.width, 0, 0, size.height, size.width]], np.float32)


def recipe(configs: PipelineConfigs) -> XLRecipe:
    """Return how images are made with a checkpoint of this family."""
    return XLRecipe(configs=configs)


# Source: the config.json files of stabilityai/stable-diffusion-xl-base-1.0.
SDXL_UNET: Config = {
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "attention_head_dim": [5, 10, 20],
    "block_out_channels": [320, 640, 1280],
    "cross_attention_dim": 2048,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "projection_class_embeddings_input_dim": 2816,
    "transformer_layers_per_block": [1, 2, 10],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "use_linear_projection": True,
}
SDXL_TEXT: Config = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "eos_token_id": 2,
}
SDXL_TEXT_2: Config = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "projection_dim": 1280,
    "hidden_act": "gelu",
    "eos_token_id": 2,
}

SDXL_INPAINTING_UNET: Config = {**SDXL_UNET, "in_channels": 9}
_SECOND_CLASSES = {
    "text_encoder_2": ("transformers", "CLIPTextModelWithProjection"),
    "tokenizer_2": ("transformers", "CLIPTokenizer"),
    "unet": ("diffusers", "UNet2DConditionModel"),
    "vae": ("diffusers", "AutoencoderKL"),
}
_FIRST_CLASSES = {
    "text_encoder": ("transformers", "CLIPTextModel"),
    "tokenizer": ("transformers", "CLIPTokenizer"),
}


def euler(facts: FileFacts) -> dict[str, Any]:
    """Return the scheduler of XL's checkpoints; the markers ``v_pred`` and ``ztsnr`` are NoobAI's."""
    config = original.scheduler_config(
        "EulerDiscreteScheduler",
        original.said_prediction(facts) or "epsilon",
        interpolation_type="linear",
        sample_max_value=1.0,
        skip_prk_steps=True,
        timestep_spacing="leading",
        use_karras_sigmas=False,
    )
    return {**config, "rescale_betas_zero_snr": True} if "ztsnr" in facts.tensors else config


def small_files(pipeline: str, unet: Config, facts: FileFacts, *, first: bool, **index: bool) -> SmallFiles:
    """Return the small files of an XL checkpoint.

    Args:
        pipeline: Class of its pipeline.
        unet: Configuration of its U-Net.
        facts: What else is known of the file.
        first: Whether it has the first text encoder.
        **index: Further fields of ``model_index.json``.
    """
    classes = {**(_FIRST_CLASSES if first else {}), **_SECOND_CLASSES}
    absent = {} if first else {name: [None, None] for name in _FIRST_CLASSES}
    scheduler = euler(facts)
    components = {
        "text_encoder_2": original.text_config(SDXL_TEXT_2, "CLIPTextModelWithProjection"),
        "unet": original.unet_config(unet, side=128),
        "vae": original.vae_config(VAE, side=1024, scaling_factor=0.13025),
    }
    if first:
        components["text_encoder"] = original.text_config(SDXL_TEXT, "CLIPTextModel")
    return SmallFiles(
        index={**original.index_of(pipeline, scheduler["_class_name"], classes), **absent, **index},
        scheduler=scheduler,
        components=components,
        others={
            **(tokenizer_files("tokenizer") if first else {}),
            **tokenizer_files("tokenizer_2", padding="!"),
        },
    )


def _recognise(unet: Tensors) -> tuple[str, ...]:
    return min(differences(unet, SDXL_UNET), differences(unet, SDXL_INPAINTING_UNET), key=len)


def _small_files(unet: Tensors, facts: FileFacts) -> SmallFiles:
    channels = structure_of_file(unet)["in_channels"]
    pipeline = "StableDiffusionXLInpaintPipeline" if channels == 9 else "StableDiffusionXLPipeline"
    config = {**SDXL_UNET, "in_channels": channels}
    return small_files(pipeline, config, facts, first=True, force_zeros_for_empty_prompt=True)


FAMILY = Family(
    name="stable-diffusion-xl",
    title="Stable Diffusion XL",
    pipelines=PIPELINES,
    parts=(
        Part(name="text_encoder", component="text_encoder", kinds=(CLIP_TEXT_LAYERS,), role="text"),
        SECOND_TEXT_ENCODER,
        Part(name="unet", component="unet", kinds=(UNET,), role="denoiser"),
        *VAE_PARTS,
    ),
    metadata=("scheduler", "tokenizer", "tokenizer_2"),
    tokenizers=("tokenizer", "tokenizer_2"),
    recipe=recipe,
    single_file=SingleFileLayout(
        components=(
            original.clip_in_file("conditioner.embedders.0.transformer."),
            original.openclip_in_file("text_encoder_2", "conditioner.embedders.1.model.", projected=True),
            original.UNET_IN_FILE,
            original.VAE_IN_FILE,
        ),
        denoiser="unet",
        recognise=_recognise,
        differs=mismatch,
        small_files=_small_files,
    ),
    adapted=(ADAPTED_TEXT, ADAPTED_TEXT_2, ADAPTED_UNET),
    shipped=(
        ShippedGraph(label="Stable Diffusion XL", kind=CLIP_TEXT_LAYERS, config=SDXL_TEXT),
        ShippedGraph(label="Stable Diffusion XL", kind=CLIP_TEXT_PROJECTED, config=SDXL_TEXT_2),
        ShippedGraph(label="Stable Diffusion XL", kind=UNET, config=SDXL_UNET),
        ShippedGraph(label="Stable Diffusion XL inpainting", kind=UNET, config=SDXL_INPAINTING_UNET),
    ),
)

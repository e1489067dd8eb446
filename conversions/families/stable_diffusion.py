"""Stable Diffusion 1.x, and checkpoints with the same parts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from conversions.families.shared import original_layout as original
from conversions.families.shared.adapted_components import ADAPTED_TEXT, ADAPTED_UNET
from conversions.families.shared.clip_files import tokenizer_files
from conversions.families.shared.unet_recipe import UNetRecipe
from conversions.families.shared.unet_structure import differences, mismatch, structure_of_file
from conversions.family import Family, Part, PipelineConfigs, ShippedGraph
from conversions.graph_kind import Config
from conversions.single_file_layout import FileFacts, SingleFileLayout, SmallFiles
from conversions.submodels.clip_text import CLIP_TEXT
from conversions.submodels.safety_checker import SAFETY_CHECKER
from conversions.submodels.tiny_vae import TINY_DECODER, TINY_ENCODER
from conversions.submodels.unet import UNET
from conversions.submodels.vae import DECODER, ENCODER
from conversions.weights.expression import Tensors

PIPELINES = (
    "StableDiffusionPipeline",
    "StableDiffusionImg2ImgPipeline",
    "StableDiffusionInpaintPipeline",
    "LatentConsistencyModelPipeline",
    "LatentConsistencyModelImg2ImgPipeline",
    "OnnxStableDiffusionPipeline",
    "ORTStableDiffusionPipeline",
)
PARTS = (
    Part(name="text_encoder", component="text_encoder", kinds=(CLIP_TEXT,), role="text"),
    Part(name="unet", component="unet", kinds=(UNET,), role="denoiser"),
    Part(name="vae_encoder", component="vae", kinds=(ENCODER, TINY_ENCODER), role="encoder"),
    Part(name="vae_decoder", component="vae", kinds=(DECODER, TINY_DECODER), role="decoder"),
    Part(
        name="safety_checker",
        component="safety_checker",
        kinds=(SAFETY_CHECKER,),
        role="safety",
        optional=True,
    ),
)
METADATA = ("scheduler", "tokenizer", "feature_extractor")


@dataclass(frozen=True, kw_only=True)
class StableDiffusionRecipe(UNetRecipe):
    """Images with Stable Diffusion 1.x and 2.x."""

    @property
    def scheduler_config(self) -> Mapping[str, Any]:
        """The scheduler's configuration, put right where old checkpoints are known to be wrong.

        Source: diffusers 0.42, ``StableDiffusionPipeline.__init__``, which corrects the same two fields.
        """
        return {**self.configs.scheduler, "steps_offset": 1, "clip_sample": False}

    @property
    def native_size(self) -> tuple[int, int]:
        """Width and height, in pixels, of the images that the checkpoint was trained on.

        Configurations of the first releases say 32 and mean 64.
        Source: diffusers 0.42, ``StableDiffusionPipeline.__init__``.
        """
        width, height = super().native_size
        if _version(self.unet.get("_diffusers_version")) < (0, 9):
            least = self.latent_side * self.latents.downscale
            return max(width, least), max(height, least)
        return width, height


def recipe(configs: PipelineConfigs) -> StableDiffusionRecipe:
    """Return how images are made with a checkpoint of this family."""
    return StableDiffusionRecipe(configs=configs)


def _version(text: Any) -> tuple[int, ...]:
    parts = str(text or "99").split(".")[:2]
    return tuple(int(part) if part.isdigit() else 99 for part in parts)


# Source: the config.json files of CompVis/stable-diffusion-v1-4 and everything fine-tuned from it.
SD1_UNET: Config = {"cross_attention_dim": 768}
SD1_TEXT: Config = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_attention_heads": 12,
    "eos_token_id": 2,
}
SD1_SAFETY_CHECKER: Config = {
    "projection_dim": 768,
    "vision_config": {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_attention_heads": 16,
        "num_hidden_layers": 24,
        "patch_size": 14,
    },
}
# stable-diffusion-v1-5/stable-diffusion-inpainting: latents, masked latents and mask.
SD1_INPAINTING_UNET: Config = {**SD1_UNET, "in_channels": 9}
# SimianLuo/LCM_Dreamshaper_v7.
SD1_LCM_UNET: Config = {**SD1_UNET, "time_cond_proj_dim": 256}
# The autoencoder of Stable Diffusion 1.x, 2.x and XL: equal but for the weights.
VAE: Config = {
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "layers_per_block": 2,
}

# The demo checkpoint that comes with sdsetup.
DEMO_TEXT: Config = {
    "vocab_size": 623,
    "hidden_size": 128,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "eos_token_id": 622,
}
DEMO_UNET: Config = {
    "attention_head_dim": 4,
    "block_out_channels": [96, 128],
    "cross_attention_dim": 128,
    "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "layers_per_block": 1,
    "norm_num_groups": 16,
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
}
DEMO_VAE: Config = {
    "block_out_channels": [32, 32, 64, 64],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "norm_num_groups": 16,
}

_PIPELINE_OF_CHANNELS = {4: "StableDiffusionPipeline", 9: "StableDiffusionInpaintPipeline"}


def index_and_scheduler(channels: int, scheduler: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return ``model_index.json`` and the scheduler of a checkpoint with one text encoder.

    Args:
        channels: Input channels of the U-Net.
        scheduler: Its configuration.
    """
    classes = {
        "text_encoder": ("transformers", "CLIPTextModel"),
        "tokenizer": ("transformers", "CLIPTokenizer"),
        "unet": ("diffusers", "UNet2DConditionModel"),
        "vae": ("diffusers", "AutoencoderKL"),
    }
    index = original.index_of(_PIPELINE_OF_CHANNELS[channels], scheduler["_class_name"], classes)
    return {**index, "safety_checker": [None, None], "feature_extractor": [None, None]}, scheduler


def _recognise(unet: Tensors) -> tuple[str, ...]:
    return min(differences(unet, SD1_UNET), differences(unet, SD1_INPAINTING_UNET), key=len)


def _small_files(unet: Tensors, facts: FileFacts) -> SmallFiles:
    channels = structure_of_file(unet)["in_channels"]
    scheduler = original.scheduler_config(
        "PNDMScheduler",
        original.said_prediction(facts) or "epsilon",
        clip_sample=False,
        set_alpha_to_one=False,
        skip_prk_steps=True,
    )
    index, scheduler = index_and_scheduler(channels, scheduler)
    return SmallFiles(
        index=index,
        scheduler=scheduler,
        components={
            "text_encoder": original.text_config(SD1_TEXT, "CLIPTextModel"),
            "unet": original.unet_config({**SD1_UNET, "in_channels": channels}, side=64),
            "vae": original.vae_config(VAE, side=512, scaling_factor=0.18215),
        },
        others=tokenizer_files("tokenizer"),
    )


SINGLE_FILE = SingleFileLayout(
    components=(
        original.clip_in_file("cond_stage_model.transformer."),
        original.UNET_IN_FILE,
        original.VAE_IN_FILE,
    ),
    denoiser="unet",
    recognise=_recognise,
    differs=mismatch,
    small_files=_small_files,
)

FAMILY = Family(
    name="stable-diffusion",
    title="Stable Diffusion 1.x",
    pipelines=PIPELINES,
    parts=PARTS,
    metadata=METADATA,
    tokenizers=("tokenizer",),
    recipe=recipe,
    single_file=SINGLE_FILE,
    adapted=(ADAPTED_TEXT, ADAPTED_UNET),
    shipped=(
        ShippedGraph(label="Stable Diffusion 1.x", kind=CLIP_TEXT, config=SD1_TEXT),
        ShippedGraph(label="Stable Diffusion 1.x", kind=UNET, config=SD1_UNET),
        ShippedGraph(label="Stable Diffusion 1.x", kind=ENCODER, config=VAE),
        ShippedGraph(label="Stable Diffusion 1.x", kind=DECODER, config=VAE),
        ShippedGraph(label="Stable Diffusion 1.x", kind=SAFETY_CHECKER, config=SD1_SAFETY_CHECKER),
        ShippedGraph(label="Stable Diffusion 1.x inpainting", kind=UNET, config=SD1_INPAINTING_UNET),
        ShippedGraph(label="Latent consistency models", kind=UNET, config=SD1_LCM_UNET),
        ShippedGraph(label="TAESD", kind=TINY_ENCODER, config={}),
        ShippedGraph(label="TAESD", kind=TINY_DECODER, config={}),
        ShippedGraph(label="the demo checkpoint", kind=CLIP_TEXT, config=DEMO_TEXT),
        ShippedGraph(label="the demo checkpoint", kind=UNET, config=DEMO_UNET),
        ShippedGraph(label="the demo checkpoint", kind=ENCODER, config=DEMO_VAE),
        ShippedGraph(label="the demo checkpoint", kind=DECODER, config=DEMO_VAE),
    ),
)

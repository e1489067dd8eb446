"""Small Stable Diffusion checkpoints with random weights, written by the libraries that publish real ones."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tests.flow_checkpoints import FLOW_VARIANTS, FlowVariant
from tests.flux_checkpoints import FLUX_VARIANTS, FluxVariant
from tests.pixart_checkpoints import PIXART_VARIANTS, PixArtVariant
from tests.sana_checkpoints import SANA_VARIANTS, SanaVariant
from tests.sd3_checkpoints import SD3_VARIANTS, SD3Variant
from tests.sdsetup.imaging import clip_vocabulary

# Enough of everything to be a Stable Diffusion, little enough to be traced in seconds.
UNET = {
    "sample_size": 16,
    "block_out_channels": (32, 64),
    "layers_per_block": 1,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "cross_attention_dim": 32,
    "attention_head_dim": 4,
    "norm_num_groups": 8,
}
VAE = {
    "block_out_channels": (16, 16, 32, 32),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "norm_num_groups": 8,
    "layers_per_block": 1,
    "sample_size": 128,
}
TEXT = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 77,
}
VISION = {**TEXT, "image_size": 32, "patch_size": 8}
SCHEDULER = {
    "_class_name": "PNDMScheduler",
    "_diffusers_version": "0.2.2",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "num_train_timesteps": 1000,
    "skip_prk_steps": True,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}
INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "_diffusers_version": "0.2.2",
    "feature_extractor": ["transformers", "CLIPFeatureExtractor"],
    "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
    "scheduler": ["diffusers", "PNDMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}
PREPROCESSOR = {
    "crop_size": 32,
    "do_center_crop": True,
    "do_convert_rgb": True,
    "do_normalize": True,
    "do_resize": True,
    "feature_extractor_type": "CLIPFeatureExtractor",
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "resample": 3,
    "size": 32,
}


XL_UNET = {
    **UNET,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "attention_head_dim": (2, 4),
    "cross_attention_dim": 32 + 48,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "projection_class_embeddings_input_dim": 6 * 8 + 24,
    "transformer_layers_per_block": (1, 2),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "use_linear_projection": True,
}
# The form of SSD-1B: other depths on the way up than on the way down, no attention in the middle.
XL_DISTILLED_UNET = {
    **XL_UNET,
    "mid_block_type": "UNetMidBlock2D",
    "reverse_transformer_layers_per_block": ((3, 1), 1),
    "transformer_layers_per_block": (1, (2,)),
}
XL_TEXT_2 = {
    **TEXT,
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "hidden_act": "gelu",
    "projection_dim": 24,
}
REFINER_UNET = {
    **XL_UNET,
    "cross_attention_dim": 48,
    "projection_class_embeddings_input_dim": 5 * 8 + 24,
}
TINY_VAE = {
    "encoder_block_out_channels": (16, 16, 16, 16),
    "decoder_block_out_channels": (16, 16, 16, 16),
    "num_encoder_blocks": (1, 1, 1, 1),
    "num_decoder_blocks": (1, 1, 1, 1),
}
EULER = {**SCHEDULER, "_class_name": "EulerDiscreteScheduler", "timestep_spacing": "leading"}
# The form of SDXL-Turbo.
EULER_ANCESTRAL_TRAILING = {
    **SCHEDULER,
    "_class_name": "EulerAncestralDiscreteScheduler",
    "timestep_spacing": "trailing",
}
V_PREDICTION = {
    **SCHEDULER,
    "_class_name": "DDIMScheduler",
    "clip_sample": False,
    "prediction_type": "v_prediction",
}
LCM = {
    **SCHEDULER,
    "_class_name": "LCMScheduler",
    "original_inference_steps": 50,
    "timestep_spacing": "leading",
    "timestep_scaling": 10.0,
}


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A tiny checkpoint: what differs from the tiny Stable Diffusion 1.x.

    Attributes:
        pipeline: Class of its pipeline.
        unet: Configuration of its U-Net.
        text: Configuration of its first text encoder; None leaves it out.
        text_2: Configuration of its second text encoder, which projects; None leaves it out.
        tiny_vae: Whether its autoencoder is AutoencoderTiny.
        scheduler: Its scheduler_config.json.
        index: Further entries of its model_index.json.
    """

    pipeline: str = "StableDiffusionPipeline"
    unet: dict[str, Any] = field(default_factory=lambda: UNET)
    text: dict[str, Any] | None = field(default_factory=lambda: TEXT)
    text_2: dict[str, Any] | None = None
    tiny_vae: bool = False
    scheduler: dict[str, Any] = field(default_factory=lambda: SCHEDULER)
    index: dict[str, Any] = field(default_factory=dict)


_XL = Variant(
    pipeline="StableDiffusionXLPipeline",
    unet=XL_UNET,
    text_2=XL_TEXT_2,
    scheduler=EULER,
    index={"force_zeros_for_empty_prompt": True},
)
AnyVariant = Variant | FlowVariant | SD3Variant | FluxVariant | PixArtVariant | SanaVariant
VARIANTS: dict[str, AnyVariant] = {
    "stable-diffusion": Variant(),
    "stable-diffusion inpainting": Variant(
        pipeline="StableDiffusionInpaintPipeline", unet={**UNET, "in_channels": 9}
    ),
    "latent consistency": Variant(
        pipeline="LatentConsistencyModelPipeline", unet={**UNET, "time_cond_proj_dim": 32}, scheduler=LCM
    ),
    "distilled U-Net": Variant(unet={**UNET, "mid_block_type": None}),
    "TAESD": Variant(tiny_vae=True),
    "stable-diffusion-2": Variant(
        unet={**UNET, "use_linear_projection": True, "attention_head_dim": (2, 4)},
        text={**TEXT, "hidden_act": "gelu"},
        scheduler=V_PREDICTION,
    ),
    "stable-diffusion-xl": _XL,
    "stable-diffusion-xl turbo": replace(_XL, scheduler=EULER_ANCESTRAL_TRAILING),
    "stable-diffusion-xl inpainting": replace(
        _XL, pipeline="StableDiffusionXLInpaintPipeline", unet={**XL_UNET, "in_channels": 9}
    ),
    "stable-diffusion-xl distilled U-Net": replace(_XL, unet=XL_DISTILLED_UNET),
    "stable-diffusion-xl-refiner": replace(
        _XL,
        pipeline="StableDiffusionXLImg2ImgPipeline",
        unet=REFINER_UNET,
        text=None,
        index={"force_zeros_for_empty_prompt": False, "requires_aesthetics_score": True},
    ),
    **SD3_VARIANTS,
    **FLUX_VARIANTS,
    **FLOW_VARIANTS,
    **PIXART_VARIANTS,
    **SANA_VARIANTS,
}
"""A tiny checkpoint for every family, and for what its checkpoints differ in."""


def make_variant(folder: Path, variant: AnyVariant, *, seed: int = 0) -> Path:
    """Write a tiny checkpoint without a safety checker; equal seeds give equal files."""
    import torch
    from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    torch.manual_seed(seed)
    folder.mkdir(parents=True)
    if not isinstance(variant, Variant):
        variant.write(folder, seed)
        return folder
    index: dict[str, Any] = {
        "_class_name": variant.pipeline,
        "_diffusers_version": "0.19.0",
        "scheduler": ["diffusers", variant.scheduler["_class_name"]],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderTiny" if variant.tiny_vae else "AutoencoderKL"],
        **variant.index,
    }
    if not variant.pipeline.startswith("StableDiffusionXL"):
        index |= {"safety_checker": [None, None], "feature_extractor": [None, None]}
    UNet2DConditionModel(**variant.unet).save_pretrained(folder / "unet")
    vae = AutoencoderTiny(**TINY_VAE) if variant.tiny_vae else AutoencoderKL(**VAE)
    vae.save_pretrained(folder / "vae")
    for suffix, config, model in (
        ("", variant.text, CLIPTextModel),
        ("_2", variant.text_2, CLIPTextModelWithProjection),
    ):
        if config is None:
            index |= {f"text_encoder{suffix}": [None, None], f"tokenizer{suffix}": [None, None]}
            continue
        tokens = clip_vocabulary.write_for_encoder(folder / f"tokenizer{suffix}")
        model(CLIPTextConfig(**config, **tokens)).save_pretrained(folder / f"text_encoder{suffix}")
        index[f"text_encoder{suffix}"] = ["transformers", model.__name__]
        index[f"tokenizer{suffix}"] = ["transformers", "CLIPTokenizer"]
    if variant.text_2 is None:
        index = {name: entry for name, entry in index.items() if not name.endswith("_2")}
    (folder / "scheduler").mkdir()
    _write(folder / "scheduler" / "scheduler_config.json", variant.scheduler)
    _write(folder / "model_index.json", index)
    return folder


def make_tiny(folder: Path, *, safety_checker: bool = True, seed: int = 0) -> Path:
    """Write a whole checkpoint, about 2 MB in float32; equal seeds give equal files."""
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
    from transformers import CLIPConfig, CLIPTextConfig, CLIPTextModel

    torch.manual_seed(seed)
    folder.mkdir(parents=True)
    tokens = clip_vocabulary.write_for_encoder(folder / "tokenizer")
    UNet2DConditionModel(**UNET).save_pretrained(folder / "unet")
    AutoencoderKL(**VAE).save_pretrained(folder / "vae")
    CLIPTextModel(CLIPTextConfig(**TEXT, **tokens)).save_pretrained(folder / "text_encoder")
    index = dict(INDEX)
    if safety_checker:
        config = CLIPConfig(text_config={**TEXT, **tokens}, vision_config=VISION, projection_dim=32)
        StableDiffusionSafetyChecker(config).save_pretrained(folder / "safety_checker")
        (folder / "feature_extractor").mkdir()
        _write(folder / "feature_extractor" / "preprocessor_config.json", PREPROCESSOR)
    else:
        index |= {"safety_checker": [None, None], "feature_extractor": [None, None]}
    (folder / "scheduler").mkdir()
    _write(folder / "scheduler" / "scheduler_config.json", SCHEDULER)
    _write(folder / "model_index.json", index)
    return folder


def _write(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content, indent=2), encoding="utf-8")

"""Small Stable Diffusion checkpoints with random weights, written by the libraries that publish real ones."""

from __future__ import annotations

import json
from pathlib import Path

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


def make_tiny(folder: Path, *, safety_checker: bool = True, seed: int = 0) -> Path:
    """Write a whole checkpoint, about 2 MB in float32; equal seeds give equal files."""
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
    from transformers import CLIPConfig, CLIPTextConfig, CLIPTextModel

    torch.manual_seed(seed)
    folder.mkdir(parents=True)
    vocabulary = clip_vocabulary.write(folder / "tokenizer", config={"model_max_length": 77})
    words = json.loads((vocabulary / "vocab.json").read_text("utf-8"))
    tokens = {
        "vocab_size": len(words),
        "bos_token_id": words["<|startoftext|>"],
        "eos_token_id": words["<|endoftext|>"],
        "pad_token_id": 1,
    }
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

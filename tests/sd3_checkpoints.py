"""Small Stable Diffusion 3 checkpoints with random weights, by the libraries' own classes."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.conversions.tokenizers import t5_vocabulary
from tests.sdsetup.imaging import clip_vocabulary

TEXT = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 77,
    "projection_dim": 16,
}
TEXT_2 = {**TEXT, "hidden_size": 48, "num_hidden_layers": 3, "hidden_act": "gelu", "projection_dim": 24}
T5 = {
    "d_model": 96,
    "d_kv": 16,
    "d_ff": 64,
    "num_layers": 2,
    "num_heads": 4,
    "feed_forward_proj": "gated-gelu",
}
SD3_TRANSFORMER = {
    "sample_size": 16,
    "num_layers": 2,
    "attention_head_dim": 16,
    "num_attention_heads": 4,
    "joint_attention_dim": 96,
    "caption_projection_dim": 64,
    "pooled_projection_dim": 16 + 24,
    "pos_embed_max_size": 80,
}
SD35_TRANSFORMER = {
    **SD3_TRANSFORMER,
    "num_layers": 3,
    "dual_attention_layers": (0, 1),
    "qk_norm": "rms_norm",
}
VAE_16 = {
    "block_out_channels": (16, 16, 32, 32),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "latent_channels": 16,
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "sample_size": 128,
    "scaling_factor": 1.5305,
    "shift_factor": 0.0609,
    "use_post_quant_conv": False,
    "use_quant_conv": False,
}
FLOW = {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": 3.0}


@dataclass(frozen=True, kw_only=True)
class SD3Variant:
    """A tiny Stable Diffusion 3.

    Attributes:
        transformer: Configuration of its transformer.
        t5: Whether it has its third text encoder.
    """

    transformer: dict[str, Any] = field(default_factory=lambda: SD35_TRANSFORMER)
    t5: bool = True

    def write(self, folder: Path, seed: int) -> None:
        """Write the checkpoint; equal seeds give equal files."""
        import torch
        from diffusers import AutoencoderKL, SD3Transformer2DModel
        from transformers import CLIPTextConfig, CLIPTextModelWithProjection, T5Config, T5EncoderModel

        torch.manual_seed(seed)
        index: dict[str, Any] = {
            "_class_name": "StableDiffusion3Pipeline",
            "_diffusers_version": "0.29.0",
            "scheduler": ["diffusers", FLOW["_class_name"]],
            "text_encoder_3": ["transformers", "T5EncoderModel"] if self.t5 else [None, None],
            "tokenizer_3": ["transformers", "T5TokenizerFast"] if self.t5 else [None, None],
            "transformer": ["diffusers", "SD3Transformer2DModel"],
            "vae": ["diffusers", "AutoencoderKL"],
        }
        random_weights(SD3Transformer2DModel(**self.transformer)).save_pretrained(folder / "transformer")
        AutoencoderKL(**VAE_16).save_pretrained(folder / "vae")
        for suffix, config in (("", TEXT), ("_2", TEXT_2)):
            tokens = clip_vocabulary.write_for_encoder(folder / f"tokenizer{suffix}")
            model = CLIPTextModelWithProjection(CLIPTextConfig(**config, **tokens))
            model.save_pretrained(folder / f"text_encoder{suffix}")
            index[f"text_encoder{suffix}"] = ["transformers", "CLIPTextModelWithProjection"]
            index[f"tokenizer{suffix}"] = ["transformers", "CLIPTokenizer"]
        if self.t5:
            count = t5_vocabulary.write(folder / "tokenizer_3")
            encoder = random_weights(T5EncoderModel(T5Config(**T5, vocab_size=count)))
            encoder.save_pretrained(folder / "text_encoder_3")
        write_json(folder / "scheduler" / "scheduler_config.json", FLOW)
        write_json(folder / "model_index.json", index)


def random_weights(model: Any) -> Any:
    """Give every weight a size that matters: gates that begin as zero would hide mistakes."""
    import torch

    with torch.no_grad():
        for name, weight in model.named_parameters():
            spread = weight[0].numel() ** -0.5 if weight.ndim > 1 else 0.2
            centre = 1.0 if weight.ndim == 1 and "norm" in name and name.endswith("weight") else 0.0
            weight.copy_(centre + spread * torch.randn(weight.shape))
    return model


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file, and the folder that it is in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2), encoding="utf-8")


SD3_VARIANTS = {
    "stable-diffusion-3": SD3Variant(),
    "stable-diffusion-3 of 2024 without T5": SD3Variant(transformer=SD3_TRANSFORMER, t5=False),
}
"""A tiny checkpoint of each form in which Stable Diffusion 3 was published."""

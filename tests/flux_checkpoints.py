"""Small FLUX.1 checkpoints with random weights, by the libraries' own classes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.conversions.tokenizers import t5_vocabulary
from tests.sd3_checkpoints import T5, TEXT, VAE_16, random_weights, write_json
from tests.sdsetup.imaging import clip_vocabulary

TRANSFORMER = {
    "num_layers": 1,
    "num_single_layers": 2,
    "attention_head_dim": 16,
    "num_attention_heads": 4,
    "joint_attention_dim": 96,
    "pooled_projection_dim": 32,
    "axes_dims_rope": (4, 6, 6),
}
SCHEDULER = {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000}


@dataclass(frozen=True, kw_only=True)
class FluxVariant:
    """A tiny FLUX.1.

    Attributes:
        dev: Whether it reads the guidance scale and shifts noise levels by size.
    """

    dev: bool

    def write(self, folder: Path, seed: int) -> None:
        """Write the checkpoint; equal seeds give equal files."""
        import torch
        from diffusers import AutoencoderKL, FluxTransformer2DModel
        from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

        torch.manual_seed(seed)
        index: dict[str, Any] = {
            "_class_name": "FluxPipeline",
            "_diffusers_version": "0.30.0",
            "scheduler": ["diffusers", SCHEDULER["_class_name"]],
            "text_encoder": ["transformers", "CLIPTextModel"],
            "text_encoder_2": ["transformers", "T5EncoderModel"],
            "tokenizer": ["transformers", "CLIPTokenizer"],
            "tokenizer_2": ["transformers", "T5TokenizerFast"],
            "transformer": ["diffusers", "FluxTransformer2DModel"],
            "vae": ["diffusers", "AutoencoderKL"],
        }
        transformer = FluxTransformer2DModel(**TRANSFORMER, guidance_embeds=self.dev)
        random_weights(transformer).save_pretrained(folder / "transformer")
        AutoencoderKL(**VAE_16).save_pretrained(folder / "vae")
        tokens = clip_vocabulary.write_for_encoder(folder / "tokenizer")
        CLIPTextModel(CLIPTextConfig(**TEXT, **tokens)).save_pretrained(folder / "text_encoder")
        count = t5_vocabulary.write(folder / "tokenizer_2")
        encoder = random_weights(T5EncoderModel(T5Config(**T5, vocab_size=count)))
        encoder.save_pretrained(folder / "text_encoder_2")
        shift = {"shift": 3.0, "use_dynamic_shifting": True} if self.dev else {"shift": 1.0}
        write_json(folder / "scheduler" / "scheduler_config.json", {**SCHEDULER, **shift})
        write_json(folder / "model_index.json", index)


FLUX_VARIANTS = {"flux schnell": FluxVariant(dev=False), "flux dev": FluxVariant(dev=True)}
"""A tiny checkpoint of each form of FLUX.1."""

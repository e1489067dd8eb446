"""Small Sana and Sana-Sprint checkpoints with random weights, by the libraries' own classes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests import gemma_vocabulary
from tests.sd3_checkpoints import random_weights, write_json

GEMMA2 = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "query_pre_attn_scalar": 32,
}
TRANSFORMER = {
    "in_channels": 8,
    "out_channels": 8,
    "num_attention_heads": 4,
    "attention_head_dim": 16,
    "num_layers": 2,
    "num_cross_attention_heads": 2,
    "cross_attention_head_dim": 32,
    "cross_attention_dim": 64,
    "caption_channels": 64,
    "sample_size": 16,
}
_BLOCKS = (*("ResBlock",) * 5, "EfficientViTBlock")
_CHANNELS, _SCALES = (8, 8, 16, 16, 32, 32), (*((),) * 5, (5,))
# Six levels, as published: the pipelines take multiples of 32 pixels alone.
DC_AE = {
    "latent_channels": 8,
    "attention_head_dim": 8,
    "encoder_block_types": _BLOCKS,
    "decoder_block_types": _BLOCKS,
    "encoder_block_out_channels": _CHANNELS,
    "decoder_block_out_channels": _CHANNELS,
    "encoder_layers_per_block": (1,) * 6,
    "decoder_layers_per_block": (1,) * 6,
    "encoder_qkv_multiscales": _SCALES,
    "decoder_qkv_multiscales": _SCALES,
    "upsample_block_type": "interpolate",
    "downsample_block_type": "conv",
    "scaling_factor": 0.41407,
}
# Source: scripts/convert_sana_to_diffusers.py of diffusers, with the class's own fields as it saves them.
FLOW_DPM = {
    "_class_name": "DPMSolverMultistepScheduler",
    "algorithm_type": "dpmsolver++",
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "beta_start": 0.0001,
    "flow_shift": 3.0,
    "num_train_timesteps": 1000,
    "prediction_type": "flow_prediction",
    "solver_order": 2,
    "use_flow_sigmas": True,
}
FLOW_EULER = {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": 3.0}

SCM = {
    "_class_name": "SCMScheduler",
    "num_train_timesteps": 1000,
    "prediction_type": "trigflow",
    "sigma_data": 0.5,
}


@dataclass(frozen=True, kw_only=True)
class SanaVariant:
    """A tiny Sana.

    Attributes:
        pipeline: Class of its pipeline.
        transformer: Configuration of its denoiser.
        scheduler: Its scheduler_config.json.
        side: In pixels, of the images that it was made for.
    """

    pipeline: str = "SanaPipeline"
    transformer: dict[str, Any] = field(default_factory=lambda: TRANSFORMER)
    scheduler: dict[str, Any] = field(default_factory=lambda: FLOW_DPM)
    side: int = 512

    def write(self, folder: Path, seed: int) -> None:
        """Write the checkpoint; equal seeds give equal files."""
        import torch
        from diffusers import AutoencoderDC, SanaTransformer2DModel
        from transformers import Gemma2Config, Gemma2Model

        torch.manual_seed(seed)
        random_weights(SanaTransformer2DModel(**self.transformer)).save_pretrained(folder / "transformer")
        random_weights(AutoencoderDC(**DC_AE)).save_pretrained(folder / "vae")
        words = gemma_vocabulary.write(folder / "tokenizer")
        encoder = random_weights(Gemma2Model(Gemma2Config(**GEMMA2, vocab_size=words)))
        encoder.save_pretrained(folder / "text_encoder")
        write_json(folder / "scheduler" / "scheduler_config.json", self.scheduler)
        index = {
            "_class_name": self.pipeline,
            "_diffusers_version": "0.32.0",
            "scheduler": ["diffusers", self.scheduler["_class_name"]],
            "text_encoder": ["transformers", "Gemma2Model"],
            "tokenizer": ["transformers", "GemmaTokenizer"],
            "transformer": ["diffusers", "SanaTransformer2DModel"],
            "vae": ["diffusers", "AutoencoderDC"],
        }
        write_json(folder / "model_index.json", index)


SANA_VARIANTS = {
    "sana": SanaVariant(),
    # The form of SANA 1.5, and of models of 2048 pixels and more.
    "sana with positions": SanaVariant(
        transformer={**TRANSFORMER, "qk_norm": "rms_norm_across_heads", "interpolation_scale": 2.0},
        scheduler=FLOW_EULER,
    ),
    "sana-sprint": SanaVariant(
        pipeline="SanaSprintPipeline",
        transformer={**TRANSFORMER, "qk_norm": "rms_norm_across_heads", "guidance_embeds": True},
        scheduler=SCM,
    ),
}
"""A tiny checkpoint of each form of Sana."""

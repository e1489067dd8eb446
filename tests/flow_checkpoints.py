"""Small checkpoints of flow-matching pipelines with random weights, by the libraries' own classes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tests import qwen_vocabulary

QWEN3 = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
}
VAE = {
    "block_out_channels": (16, 16, 32, 32),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "norm_num_groups": 8,
    "layers_per_block": 1,
    "latent_channels": 16,
    "scaling_factor": 0.3611,
    "shift_factor": 0.1159,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
}
Z_IMAGE = {
    "dim": 96,
    "n_layers": 2,
    "n_refiner_layers": 1,
    "n_heads": 3,
    "n_kv_heads": 3,
    "cap_feat_dim": 64,
    "axes_dims": (8, 12, 12),
    "axes_lens": (1024, 64, 64),
}
FLUX2_VAE = {
    "block_out_channels": (16, 16, 32, 32),
    "norm_num_groups": 8,
    "layers_per_block": 1,
    "latent_channels": 4,
}
FLUX2 = {
    "in_channels": 16,
    "num_layers": 2,
    "num_single_layers": 2,
    "attention_head_dim": 32,
    "num_attention_heads": 4,
    "joint_attention_dim": 3 * 64,
    "axes_dims_rope": (8, 8, 8, 8),
    "guidance_embeds": False,
}


@dataclass(frozen=True, kw_only=True)
class FlowVariant:
    """A tiny checkpoint of a flow-matching pipeline.

    Attributes:
        pipeline: Class of its pipeline.
        transformer: Class and configuration of its denoiser.
        vae: Class and configuration of its autoencoder.
        text: Configuration of its Qwen3.
        text_class: What the index calls the text encoder.
        scheduler: Fields of its scheduler_config.json.
        index: Further entries of its model_index.json.
    """

    pipeline: str
    transformer: tuple[str, Mapping[str, Any]]
    vae: tuple[str, Mapping[str, Any]] = field(default_factory=lambda: ("AutoencoderKL", VAE))
    text: Mapping[str, Any] = field(default_factory=lambda: QWEN3)
    text_class: str = "Qwen3Model"
    scheduler: Mapping[str, Any] = field(default_factory=dict)
    index: Mapping[str, Any] = field(default_factory=dict)

    def write(self, folder: Path, seed: int) -> None:
        """Write the checkpoint; equal seeds give equal files."""
        import diffusers
        import torch
        from transformers import Qwen3Config, Qwen3ForCausalLM

        torch.manual_seed(seed)
        for name, (class_name, config) in (("transformer", self.transformer), ("vae", self.vae)):
            component = getattr(diffusers, class_name)(**config)
            _spread(component)
            component.save_pretrained(folder / name)
        words = qwen_vocabulary.write(folder / "tokenizer")
        # Published text encoders hold the head that predicts words, whatever the index calls them.
        text = Qwen3ForCausalLM(Qwen3Config(**self.text, vocab_size=words, tie_word_embeddings=True))
        text.save_pretrained(folder / "text_encoder")
        scheduler = {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000}
        index = {
            "_class_name": self.pipeline,
            "_diffusers_version": "0.36.0",
            "scheduler": ["diffusers", scheduler["_class_name"]],
            "text_encoder": ["transformers", self.text_class],
            "tokenizer": ["transformers", "Qwen2Tokenizer"],
            "transformer": ["diffusers", self.transformer[0]],
            "vae": ["diffusers", self.vae[0]],
            **self.index,
        }
        (folder / "scheduler").mkdir()
        _write(folder / "scheduler" / "scheduler_config.json", {**scheduler, **self.scheduler})
        _write(folder / "model_index.json", index)


def _spread(component: Any) -> None:
    """Draw what starts as zero or one too, such as gates and norms: it would hide mistakes."""
    import torch

    with torch.no_grad():
        for parameter in component.parameters():
            if parameter.ndim < 2 or not parameter.any():
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
        for name, statistic in component.named_buffers():
            if name.endswith("running_mean"):
                statistic.normal_()
            elif name.endswith("running_var"):
                statistic.uniform_(0.5, 2)


def _write(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2), encoding="utf-8")


_Z_IMAGE = FlowVariant(
    pipeline="ZImagePipeline",
    transformer=("ZImageTransformer2DModel", Z_IMAGE),
    scheduler={"shift": 3.0, "use_dynamic_shifting": False},
)
_KLEIN = FlowVariant(
    pipeline="Flux2KleinPipeline",
    transformer=("Flux2Transformer2DModel", FLUX2),
    vae=("AutoencoderKLFlux2", FLUX2_VAE),
    text={**QWEN3, "num_hidden_layers": 28},
    text_class="Qwen3ForCausalLM",
    scheduler={"shift": 3.0, "use_dynamic_shifting": True},
    index={"is_distilled": True},
)
FLOW_VARIANTS = {
    "z-image turbo": _Z_IMAGE,
    "flux2-klein": _KLEIN,
    "flux2-klein base": replace(_KLEIN, index={}),
    "z-image": replace(_Z_IMAGE, scheduler={"shift": 6.0, "use_dynamic_shifting": True}),
}
"""A tiny checkpoint for every family of flow matching, and for what its checkpoints differ in."""

"""Stability AI's names of Stable Diffusion 3's transformer, and what tensors tell of its configuration."""

from __future__ import annotations

import math
from dataclasses import dataclass

from conversions.families.shared.transformer_names import (
    Halves,
    Parts,
    Target,
    columns_of,
    count_of,
    known,
    renamed,
    rows_of,
)
from conversions.graph_kind import Config
from conversions.submodels.sd3_transformer import DEFAULTS
from conversions.weights.expression import Tensors


@dataclass(frozen=True, kw_only=True)
class SD3Names:
    """The names of Stability AI's release to those of ``SD3Transformer2DModel``.

    Source: ``MMDiTX`` and ``JointBlock`` of Stability-AI/sd3.5 (``mmditx.py``) beside diffusers' class; a
    test compares with diffusers' loader.
    """

    def __call__(self, tensors: Tensors) -> Tensors:
        """Return the tensors by their new names; those that are unknown keep theirs."""
        modules: dict[str, Target] = {
            **_ENDS,
            "final_layer.adaLN_modulation.1": Halves(module="norm_out.linear"),
        }
        blocks = count_of(tensors, "joint_blocks")
        for block in range(blocks):
            old, new = f"joint_blocks.{block}", f"transformer_blocks.{block}"
            modules |= {f"{old}.{name}": f"{new}.{other}" for name, other in _BLOCK.items()}
            for attention, parts in _ATTENTION.items():
                modules[f"{old}.{attention}.qkv"] = Parts(modules=tuple(f"{new}.{part}" for part in parts))
        # The text leaves the last block after its attention: its modulation is a last layer's.
        modules[f"joint_blocks.{blocks - 1}.context_block.adaLN_modulation.1"] = Halves(
            module=f"transformer_blocks.{blocks - 1}.norm1_context.linear"
        )
        return renamed(tensors, modules)


_ENDS = {
    "pos_embed": "pos_embed.pos_embed",
    "x_embedder.proj": "pos_embed.proj",
    "t_embedder.mlp.0": "time_text_embed.timestep_embedder.linear_1",
    "t_embedder.mlp.2": "time_text_embed.timestep_embedder.linear_2",
    "y_embedder.mlp.0": "time_text_embed.text_embedder.linear_1",
    "y_embedder.mlp.2": "time_text_embed.text_embedder.linear_2",
    "final_layer.linear": "proj_out",
}
_ATTENTION = {
    "x_block.attn": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "x_block.attn2": ("attn2.to_q", "attn2.to_k", "attn2.to_v"),
    "context_block.attn": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
}
_BLOCK = {
    "x_block.adaLN_modulation.1": "norm1.linear",
    "context_block.adaLN_modulation.1": "norm1_context.linear",
    "x_block.attn.ln_q": "attn.norm_q",
    "x_block.attn.ln_k": "attn.norm_k",
    "x_block.attn2.ln_q": "attn2.norm_q",
    "x_block.attn2.ln_k": "attn2.norm_k",
    "context_block.attn.ln_q": "attn.norm_added_q",
    "context_block.attn.ln_k": "attn.norm_added_k",
    "x_block.attn.proj": "attn.to_out.0",
    "x_block.attn2.proj": "attn2.to_out.0",
    "context_block.attn.proj": "attn.to_add_out",
    "x_block.mlp.fc1": "ff.net.0.proj",
    "x_block.mlp.fc2": "ff.net.2",
    "context_block.mlp.fc1": "ff_context.net.0.proj",
    "context_block.mlp.fc2": "ff_context.net.2",
}


def structure_of_file(tensors: Tensors, config: Config) -> Config:
    """Read the fields of a configuration that show in the tensors; ``config`` says what does not."""
    width = rows_of(tensors, "x_embedder.proj.weight")
    norms = rows_of(tensors, "joint_blocks.0.x_block.attn.ln_q.weight")
    head = norms or config.get("attention_head_dim") or DEFAULTS["attention_head_dim"]
    patch = config.get("patch_size") or DEFAULTS["patch_size"]
    out = rows_of(tensors, "final_layer.linear.weight")
    places = columns_of(tensors, "pos_embed")
    layers = count_of(tensors, "joint_blocks")
    return {
        **known(
            in_channels=columns_of(tensors, "x_embedder.proj.weight"),
            out_channels=out // patch**2 if out else None,
            num_attention_heads=width // head if width else None,
            joint_attention_dim=columns_of(tensors, "context_embedder.weight"),
            caption_projection_dim=rows_of(tensors, "context_embedder.weight"),
            pooled_projection_dim=columns_of(tensors, "y_embedder.mlp.0.weight"),
            pos_embed_max_size=math.isqrt(places) if places else None,
        ),
        "num_layers": layers,
        "attention_head_dim": head,
        "dual_attention_layers": [
            layer for layer in range(layers) if f"joint_blocks.{layer}.x_block.attn2.qkv.weight" in tensors
        ],
        "qk_norm": "rms_norm" if norms else None,
    }

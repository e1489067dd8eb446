"""Configurations of every kind of submodel, with the inputs and outputs that they mean."""

from __future__ import annotations

from typing import Any

import pytest

from conversions.graph_kind import GraphKind
from conversions.submodels.autoencoder_dc import DC_DECODER
from conversions.submodels.clip_text import CLIP_TEXT, CLIP_TEXT_LAYERS, CLIP_TEXT_PROJECTED
from conversions.submodels.flux2 import FLUX2
from conversions.submodels.flux2_vae import FLUX2_DECODER
from conversions.submodels.flux_transformer import FLUX_TRANSFORMER
from conversions.submodels.gemma2 import GEMMA2_TEXT
from conversions.submodels.pixart_transformer import PIXART_TRANSFORMER
from conversions.submodels.qwen3 import QWEN3_LAST_BUT_ONE, QWEN3_THREE_LAYERS
from conversions.submodels.sana_transformer import SANA_TRANSFORMER
from conversions.submodels.sd3_transformer import SD3_TRANSFORMER
from conversions.submodels.t5_encoder import T5_ENCODER, T5_ENCODER_MASKED
from conversions.submodels.tiny_vae import TINY_DECODER, TINY_ENCODER
from conversions.submodels.unet import UNET, UNET_REFINER
from conversions.submodels.vae import DECODER, ENCODER
from conversions.submodels.z_image import Z_IMAGE

IMAGE = "hidden_states float batch 16 height width"
ROTARY = [
    "image_rotary_cos float32 tokens {0}",
    "image_rotary_sin float32 tokens {0}",
    "text_rotary_cos float32 sequence {0}",
    "text_rotary_sin float32 sequence {0}",
]
IDS = "input_ids int32 batch sequence"
MASK = "attention_mask int32 batch sequence"
STATES = "hidden_states.{0} float batch sequence {1}"
TIME = "timestep float32 1"


def rotary(half: int) -> list[str]:
    return [each.format(half) for each in ROTARY]


def states(width: int, *layers: int) -> list[str]:
    return [STATES.format(layer, width) for layer in layers]


def described(specs: Any) -> list[str]:
    return [f"{spec.name} {spec.dtype} {' '.join(map(str, spec.shape))}" for spec in specs]


XL = {
    "cross_attention_dim": 2048,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
REFINER = {**XL, "cross_attention_dim": 1280, "projection_class_embeddings_input_dim": 2560}
LEVELS = {"block_out_channels": [128, 256, 512, 512]}
# Configurations, the inputs and the outputs.
INTERFACES: list[tuple[GraphKind, dict[str, Any], list[str], list[str]]] = [
    (
        UNET,
        {},
        ["sample float batch 4 height width", TIME, "encoder_hidden_states float batch sequence 1280"],
        ["out_sample float batch 4 height width"],
    ),
    (
        UNET,
        {"in_channels": 9, "out_channels": 5, "cross_attention_dim": 768, "time_cond_proj_dim": 256},
        [
            "sample float batch 9 height width",
            TIME,
            "encoder_hidden_states float batch sequence 768",
            "timestep_cond float batch 256",
        ],
        ["out_sample float batch 5 height width"],
    ),
    (
        UNET,
        XL,
        [
            "sample float batch 4 height width",
            TIME,
            "encoder_hidden_states float batch sequence 2048",
            "text_embeds float batch 1280",
            "time_ids float batch 6",
        ],
        ["out_sample float batch 4 height width"],
    ),
    (
        UNET_REFINER,
        REFINER,
        [
            "sample float batch 4 height width",
            TIME,
            "encoder_hidden_states float batch sequence 1280",
            "text_embeds float batch 1280",
            "time_ids float batch 5",
        ],
        ["out_sample float batch 4 height width"],
    ),
    (
        ENCODER,
        {},
        ["sample float batch 3 height width"],
        ["latent_parameters float batch 8 height//1 width//1"],
    ),
    (
        ENCODER,
        {**LEVELS, "in_channels": 1, "latent_channels": 16},
        ["sample float batch 1 height width"],
        ["latent_parameters float batch 32 height//8 width//8"],
    ),
    (
        DECODER,
        {},
        ["latent_sample float batch 4 height width"],
        ["sample float batch 3 1*height 1*width"],
    ),
    (
        DECODER,
        {**LEVELS, "out_channels": 1, "latent_channels": 16},
        ["latent_sample float batch 16 height width"],
        ["sample float batch 1 8*height 8*width"],
    ),
    (
        TINY_ENCODER,
        {},
        ["sample float batch 3 height width"],
        ["latents float batch 4 height//8 width//8"],
    ),
    (
        TINY_ENCODER,
        {"encoder_block_out_channels": [64] * 3, "in_channels": 1, "latent_channels": 16},
        ["sample float batch 1 height width"],
        ["latents float batch 16 height//4 width//4"],
    ),
    (
        TINY_DECODER,
        {"out_channels": 1, "latent_channels": 16},
        ["latent_sample float batch 16 height width"],
        ["sample float batch 1 8*height 8*width"],
    ),
    (
        TINY_DECODER,
        {"encoder_block_out_channels": None},
        ["latent_sample float batch 4 height width"],
        ["sample float batch 3 8*height 8*width"],
    ),
    (
        DC_DECODER,
        {},
        ["latent_sample float batch 32 height width"],
        ["sample float batch 3 32*height 32*width"],
    ),
    (
        DC_DECODER,
        {"decoder_block_out_channels": [8] * 4, "latent_channels": 16, "in_channels": 1},
        ["latent_sample float batch 16 height width"],
        ["sample float batch 1 8*height 8*width"],
    ),
    (
        FLUX2_DECODER,
        {},
        ["latent_sample float batch 128 height width"],
        ["sample float batch 3 16*height 16*width"],
    ),
    (
        FLUX2_DECODER,
        {"block_out_channels": [8, 8], "latent_channels": 4, "out_channels": 1},
        ["latent_sample float batch 16 height width"],
        ["sample float batch 1 4*height 4*width"],
    ),
    (
        CLIP_TEXT,
        {},
        [IDS],
        ["last_hidden_state float batch sequence 512", "pooler_output float batch 512"],
    ),
    (
        CLIP_TEXT_LAYERS,
        {"hidden_size": 64, "num_hidden_layers": 2},
        [IDS],
        [
            "last_hidden_state float batch sequence 64",
            "pooler_output float batch 64",
            *states(64, 0, 1, 2),
        ],
    ),
    (
        CLIP_TEXT_PROJECTED,
        {"hidden_size": 1280, "num_hidden_layers": 3, "projection_dim": 768},
        [IDS],
        [
            "text_embeds float batch 768",
            "last_hidden_state float batch sequence 1280",
            *states(1280, 0, 1, 2, 3),
        ],
    ),
    (
        CLIP_TEXT_PROJECTED,
        {},
        [IDS],
        [
            "text_embeds float batch 512",
            "last_hidden_state float batch sequence 512",
            *states(512, *range(13)),
        ],
    ),
    (
        T5_ENCODER,
        {},
        ["input_ids int32 batch tokens"],
        ["last_hidden_state float batch tokens 512"],
    ),
    (
        T5_ENCODER_MASKED,
        {"d_model": 4096, "feed_forward_proj": "gated-gelu"},
        ["input_ids int32 batch tokens", "attention_mask int32 batch tokens"],
        ["last_hidden_state float batch tokens 4096"],
    ),
    (QWEN3_LAST_BUT_ONE, {}, [IDS, MASK], states(4096, 31)),
    (
        QWEN3_LAST_BUT_ONE,
        {"hidden_size": 2560, "num_hidden_layers": 36},
        [IDS, MASK],
        states(2560, 35),
    ),
    (QWEN3_THREE_LAYERS, {"hidden_size": 2560}, [IDS, MASK], states(2560, 9, 18, 27)),
    (GEMMA2_TEXT, {}, [IDS, MASK], ["last_hidden_state float batch sequence 2304"]),
    (GEMMA2_TEXT, {"hidden_size": 64}, [IDS, MASK], ["last_hidden_state float batch sequence 64"]),
    (
        SD3_TRANSFORMER,
        {},
        [
            IMAGE,
            "encoder_hidden_states float batch sequence 4096",
            "pooled_projections float batch 2048",
            TIME,
        ],
        ["out_hidden_states float batch 16 height width"],
    ),
    (
        SD3_TRANSFORMER,
        {"in_channels": 33, "out_channels": None, "joint_attention_dim": 96, "pooled_projection_dim": 40},
        [
            "hidden_states float batch 33 height width",
            "encoder_hidden_states float batch sequence 96",
            "pooled_projections float batch 40",
            TIME,
        ],
        ["out_hidden_states float batch 33 height width"],
    ),
    (
        FLUX_TRANSFORMER,
        {},
        [
            "hidden_states float batch tokens 64",
            "encoder_hidden_states float batch sequence 4096",
            "pooled_projections float batch 768",
            TIME,
            *rotary(64),
        ],
        ["out_hidden_states float batch tokens 64"],
    ),
    (
        FLUX_TRANSFORMER,
        {"in_channels": 384, "out_channels": 16, "patch_size": 2, "guidance_embeds": True}
        | {"attention_head_dim": 32, "joint_attention_dim": 96, "pooled_projection_dim": 40},
        [
            "hidden_states float batch tokens 384",
            "encoder_hidden_states float batch sequence 96",
            "pooled_projections float batch 40",
            TIME,
            *rotary(16),
            "guidance float32 1",
        ],
        ["out_hidden_states float batch tokens 64"],
    ),
    (
        FLUX2,
        {},
        [
            "hidden_states float batch tokens 128",
            "encoder_hidden_states float batch sequence 15360",
            TIME,
            *rotary(64),
        ],
        ["out_hidden_states float batch tokens 128"],
    ),
    (
        FLUX2,
        {"in_channels": 16, "out_channels": 8, "joint_attention_dim": 96, "attention_head_dim": 32},
        [
            "hidden_states float batch tokens 16",
            "encoder_hidden_states float batch sequence 96",
            TIME,
            *rotary(16),
        ],
        ["out_hidden_states float batch tokens 8"],
    ),
    (
        PIXART_TRANSFORMER,
        {"caption_channels": 4096, "sample_size": 64, "interpolation_scale": 1},
        [
            "hidden_states float batch 4 height width",
            "encoder_hidden_states float batch sequence 4096",
            "encoder_attention_mask int32 batch sequence",
            TIME,
            "pos_embed float32 tokens 1152",
        ],
        ["out_hidden_states float batch 8 height width"],
    ),
    (
        PIXART_TRANSFORMER,
        {"caption_channels": 96, "in_channels": 16, "out_channels": None, "attention_head_dim": 8},
        [
            IMAGE,
            "encoder_hidden_states float batch sequence 96",
            "encoder_attention_mask int32 batch sequence",
            TIME,
            "pos_embed float32 tokens 128",
            "resolution float32 1 2",
            "aspect_ratio float32 1 1",
        ],
        ["out_hidden_states float batch 16 height width"],
    ),
    (
        SANA_TRANSFORMER,
        {},
        [
            "hidden_states float batch 32 height width",
            "encoder_hidden_states float batch sequence 2304",
            "encoder_attention_mask int32 batch sequence",
            TIME,
        ],
        ["out_hidden_states float batch 32 height width"],
    ),
    (
        SANA_TRANSFORMER,
        {"in_channels": 16, "out_channels": None, "caption_channels": 64, "guidance_embeds": True}
        | {"interpolation_scale": 1, "num_attention_heads": 4},
        [
            IMAGE,
            "encoder_hidden_states float batch sequence 64",
            "encoder_attention_mask int32 batch sequence",
            TIME,
            "guidance float32 1",
            "pos_embed float32 tokens 128",
        ],
        ["out_hidden_states float batch 16 height width"],
    ),
    (
        Z_IMAGE,
        {},
        [
            "hidden_states float batch tokens 64",
            "encoder_hidden_states float batch sequence 2560",
            TIME,
            "image_padding float tokens 1",
            "text_padding float sequence 1",
            *rotary(64),
        ],
        ["out_hidden_states float batch tokens 64"],
    ),
    (
        Z_IMAGE,
        {"in_channels": 4, "cap_feat_dim": 64, "dim": 96, "n_heads": 3},
        [
            "hidden_states float batch tokens 16",
            "encoder_hidden_states float batch sequence 64",
            TIME,
            "image_padding float tokens 1",
            "text_padding float sequence 1",
            *rotary(16),
        ],
        ["out_hidden_states float batch tokens 16"],
    ),
]
KINDS = list({id(kind): kind for kind, *_ in INTERFACES}.values())
by_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind.id} {kind.variant}".strip())

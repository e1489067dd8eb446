"""What of a configuration no graph can express."""

from __future__ import annotations

from typing import Any

import pytest

from conversions.errors import ConversionError
from conversions.submodels import (
    flux2,
    flux2_vae,
    gemma2,
    qwen3,
    sana_transformer,
    t5_encoder,
    z_image,
)
from conversions.submodels.t5_encoder import T5_ENCODER
from conversions.submodels.unet import UNET
from tests.conversions.submodels.interfaces import (
    XL,
    described,
)

REFUSED: list[tuple[Any, dict[str, Any], str]] = [
    (flux2.unsupported, {"guidance_embeds": False}, ""),
    (flux2.unsupported, {}, "guidance scale (guidance_embeds), which is not supported"),
    (flux2.unsupported, {"guidance_embeds": False, "patch_size": 2}, "patch_size is 2; 1 is supported"),
    (flux2_vae.unsupported, {}, ""),
    (flux2_vae.unsupported, {"patch_size": None}, ""),
    (flux2_vae.unsupported, {"patch_size": (2, 2)}, ""),
    (flux2_vae.unsupported, {"patch_size": [1, 2]}, "patch_size is [1, 2]; [2, 2] is supported"),
    (z_image.unsupported, {}, ""),
    (z_image.unsupported, {"all_patch_size": (2,), "all_f_patch_size": [1], "siglip_feat_dim": None}, ""),
    (z_image.unsupported, {"all_patch_size": [4]}, "all_patch_size is [4]; [2] is supported"),
    (z_image.unsupported, {"all_f_patch_size": [2]}, "all_f_patch_size is [2]; [1] is supported"),
    (z_image.unsupported, {"siglip_feat_dim": 8}, "(siglip_feat_dim), which is not supported"),
    (qwen3.unsupported, {}, ""),
    (qwen3.unsupported, {"rope_scaling": None, "rope_parameters": {"rope_type": "default"}}, ""),
    (qwen3.unsupported, {"rope_scaling": {"type": "linear"}}, "positions are scaled (linear)"),
    (qwen3.unsupported, {"rope_parameters": {"rope_type": "yarn"}}, "positions are scaled (yarn)"),
    (qwen3.unsupported, {"use_sliding_window": True}, "within a sliding window"),
    (sana_transformer.unsupported, {}, ""),
    (sana_transformer.unsupported, {"qk_norm": "rms_norm_across_heads"}, ""),
    (sana_transformer.unsupported, {"qk_norm": "layer_norm"}, "qk_norm is layer_norm"),
    (sana_transformer.unsupported, {"cross_attention_dim": None}, "attends to no prompt"),
]


@pytest.mark.parametrize(("unsupported", "config", "said"), REFUSED)
def test_what_a_graph_cannot_express_is_told(unsupported: Any, config: dict[str, Any], said: str) -> None:
    told = unsupported(config)
    assert said in told
    assert bool(told) == bool(said)


@pytest.mark.parametrize(
    ("config", "length", "said"),
    [
        ({}, 4096, ""),
        ({}, 4097, "attends within 4096 tokens; prompts have up to 4097"),
        ({"sliding_window": 300}, 300, ""),
        ({"sliding_window": 300}, 301, "attends within 300 tokens"),
        ({"sliding_window": None}, 9999, ""),
        ({"use_bidirectional_attention": True}, 10, "attends to later words"),
        ({"rope_scaling": {"rope_type": "linear"}}, 10, "are scaled (linear)"),
    ],
)
def test_what_gemma_s_graph_cannot_express_is_told(config: dict[str, Any], length: int, said: str) -> None:
    told = gemma2.unsupported(config, length)
    assert said in told
    assert bool(told) == bool(said)


def test_a_feed_forward_layer_of_another_kind_is_refused() -> None:
    with pytest.raises(ConversionError, match="feed_forward_proj = gated-silu") as caught:
        T5_ENCODER.inputs({"feed_forward_proj": "gated-silu"})
    assert caught.value.code == "config.invalid"
    assert "gated-gelu and relu" in caught.value.message
    assert t5_encoder.width_of({"d_model": 7}) == 7


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"addition_time_embed_dim": None}, "addition_time_embed_dim = 0"),
        ({"projection_class_embeddings_input_dim": None}, "projection_class_embeddings_input_dim = 0"),
        ({"projection_class_embeddings_input_dim": 1536}, "beside 6 conditions on size"),
    ],
)
def test_a_u_net_without_room_for_the_pooled_state_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConversionError) as caught:
        UNET.inputs({**XL, **changes})
    assert caught.value.code == "config.invalid"
    assert said in caught.value.message
    assert described(UNET.inputs({**XL, "projection_class_embeddings_input_dim": 1537}))[3].endswith(
        "batch 1"
    )


def test_the_base_of_rotary_positions_stands_in_either_place() -> None:
    assert qwen3.rotary_theta({}) == 10_000
    assert qwen3.rotary_theta({"rope_theta": 1e6, "rope_parameters": {"rope_theta": 7}}) == 1e6
    assert qwen3.rotary_theta({"rope_parameters": {"rope_theta": 7}}) == 7
    assert qwen3.last_but_one({"num_hidden_layers": 3}) == 2

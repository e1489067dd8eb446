"""Tensors and fields of configurations that kinds of submodels know by name."""

from __future__ import annotations

import re
from typing import Any

import pytest

from conversions.graph_kind import GraphKind
from conversions.submodels import (
    gemma2,
    pixart_transformer,
    sana_transformer,
)
from conversions.submodels.autoencoder_dc import DC_DECODER
from conversions.submodels.clip_text import CLIP_TEXT, CLIP_TEXT_LAYERS, CLIP_TEXT_PROJECTED
from conversions.submodels.flux2 import FLUX2
from conversions.submodels.flux2_vae import FLUX2_DECODER
from conversions.submodels.flux_transformer import FLUX_TRANSFORMER
from conversions.submodels.gemma2 import GEMMA2_TEXT
from conversions.submodels.pixart_transformer import PIXART_TRANSFORMER
from conversions.submodels.qwen3 import QWEN3_LAST_BUT_ONE, QWEN3_THREE_LAYERS
from conversions.submodels.safety_checker import SAFETY_CHECKER
from conversions.submodels.sana_transformer import SANA_TRANSFORMER
from conversions.submodels.sd3_transformer import SD3_TRANSFORMER
from conversions.submodels.t5_encoder import T5_ENCODER, T5_ENCODER_MASKED
from conversions.submodels.tiny_vae import TINY_DECODER
from conversions.submodels.unet import UNET
from conversions.submodels.vae import DECODER, ENCODER
from conversions.submodels.z_image import Z_IMAGE
from tests.conversions.submodels.interfaces import (
    KINDS,
)


@pytest.mark.parametrize(
    ("kind", "sensitive", "plain"),
    [
        (
            UNET,
            [
                "time_embedding.linear_1.weight",
                "add_embedding.linear_2.weight",
                "down_blocks.0.resnets.0.time_emb_proj.weight",
            ],
            ["conv_in.weight", "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.weight"],
        ),
        (CLIP_TEXT_PROJECTED, ["text_projection.weight"], ["text_model.encoder.layers.0.mlp.fc1.weight"]),
        (
            T5_ENCODER,
            ["encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"],
            ["encoder.block.0.layer.0.SelfAttention.q.weight", "shared.weight"],
        ),
        (
            SD3_TRANSFORMER,
            [
                "time_text_embed.text_embedder.linear_1.weight",
                "context_embedder.weight",
                "norm_out.linear.weight",
                "proj_out.weight",
            ],
            ["transformer_blocks.0.norm1.linear.weight", "transformer_blocks.0.attn.to_q.weight"],
        ),
        (
            FLUX_TRANSFORMER,
            [
                "time_text_embed.guidance_embedder.linear_1.weight",
                "x_embedder.weight",
                "context_embedder.weight",
                "norm_out.linear.weight",
                "proj_out.weight",
            ],
            ["transformer_blocks.0.norm1.linear.weight", "single_transformer_blocks.0.proj_out.weight"],
        ),
        (
            FLUX2,
            [
                "time_guidance_embed.timestep_embedder.linear_1.weight",
                "x_embedder.weight",
                "context_embedder.weight",
                "norm_out.linear.weight",
                "proj_out.weight",
                "double_stream_modulation_img.linear.weight",
                "single_stream_modulation.linear.weight",
            ],
            ["transformer_blocks.0.attn.to_q.weight", "single_transformer_blocks.0.attn.to_out.weight"],
        ),
        (
            PIXART_TRANSFORMER,
            ["adaln_single.linear.weight", "caption_projection.linear_1.weight", "proj_out.weight"],
            ["transformer_blocks.0.attn1.to_q.weight", "transformer_blocks.0.ff.net.2.weight"],
        ),
        (
            SANA_TRANSFORMER,
            ["time_embed.linear.weight", "caption_projection.linear_1.weight", "proj_out.weight"],
            ["transformer_blocks.0.attn1.to_q.weight"],
        ),
        (
            Z_IMAGE,
            [
                "t_embedder.mlp.0.weight",
                "cap_embedder.1.weight",
                "all_x_embedder.2-1.weight",
                "all_final_layer.2-1.linear.weight",
                "layers.0.adaLN_modulation.0.weight",
            ],
            ["layers.0.attention.to_q.weight", "context_refiner.0.feed_forward.w1.weight"],
        ),
    ],
)
def test_small_layers_that_results_depend_on_most_are_not_quantised(
    kind: GraphKind, sensitive: list[str], plain: list[str]
) -> None:
    assert kind.quantizable
    found = [name for name in (*sensitive, *plain) if any(re.search(each, name) for each in kind.sensitive)]
    assert found == sensitive


def test_language_models_are_quantised_as_a_whole_and_autoencoders_not_at_all() -> None:
    assert {kind.id for kind in KINDS if kind.quantizable and not kind.sensitive} == {
        "qwen3_text",
        "gemma2_text",
    }
    assert {kind.id for kind in (*KINDS, SAFETY_CHECKER) if not kind.quantizable} == {
        *("vae_encoder", "vae_decoder", "tiny_vae_encoder", "tiny_vae_decoder", "flux2_vae_decoder"),
        *("dc_decoder", "safety_checker"),
    }


@pytest.mark.parametrize(
    ("kind", "unused", "used"),
    [
        (CLIP_TEXT, ["embeddings.position_ids"], ["embeddings.position_embedding.weight"]),
        (SAFETY_CHECKER, ["vision_model.embeddings.position_ids"], ["visual_projection.weight"]),
        (
            T5_ENCODER,
            ["shared.weight", "decoder.block.0.layer.0.SelfAttention.q.weight"],
            ["encoder.block.0.layer.0.SelfAttention.q.weight"],
        ),
        (
            QWEN3_LAST_BUT_ONE,
            [
                "model.layers.35.mlp.up_proj.weight",
                "layers.35.mlp.up_proj.weight",
                "model.norm.weight",
                "lm_head.weight",
            ],
            ["model.embed_tokens.weight", "embed_tokens.weight"],
        ),
        (GEMMA2_TEXT, ["lm_head.weight"], ["model.norm.weight", "model.lm_head.weight"]),
        (
            PIXART_TRANSFORMER,
            ["pos_embed.pos_embed", "caption_projection.y_embedding"],
            ["pos_embed.proj.weight", "caption_projection.linear_1.weight"],
        ),
        (SANA_TRANSFORMER, ["patch_embed.pos_embed"], ["patch_embed.proj.weight"]),
        (DC_DECODER, ["encoder.conv_in.weight"], ["decoder.conv_in.conv.weight"]),
        (
            FLUX2_DECODER,
            ["encoder.conv_in.weight", "quant_conv.weight", "bn.num_batches_tracked"],
            ["post_quant_conv.weight", "bn.running_mean", "decoder.conv_in.weight"],
        ),
    ],
)
def test_tensors_that_no_graph_needs(kind: GraphKind, unused: list[str], used: list[str]) -> None:
    assert [name for name in (*unused, *used) if any(re.search(each, name) for each in kind.unused)] == unused


@pytest.mark.parametrize(
    ("kind", "old", "new"),
    [
        (CLIP_TEXT, "text_model.encoder.layers.0.mlp.fc1.weight", "encoder.layers.0.mlp.fc1.weight"),
        (
            SAFETY_CHECKER,
            "vision_model.vision_model.embeddings.class_embedding",
            "vision_model.embeddings.class_embedding",
        ),
        (QWEN3_LAST_BUT_ONE, "model.embed_tokens.weight", "embed_tokens.weight"),
        (GEMMA2_TEXT, "model.embed_tokens.weight", "embed_tokens.weight"),
        (T5_ENCODER, "encoder.embed_tokens.weight", "shared.weight"),
        *(
            (
                kind,
                f"encoder.mid_block.attentions.0.{old}.weight",
                f"encoder.mid_block.attentions.0.{new}.weight",
            )
            for kind in (ENCODER, DECODER)
            for old, new in (
                ("query", "to_q"),
                ("key", "to_k"),
                ("value", "to_v"),
                ("proj_attn", "to_out.0"),
            )
        ),
    ],
)
def test_older_names_of_tensors(kind: GraphKind, old: str, new: str) -> None:
    assert new in {re.sub(each.pattern, each.replacement, old) for each in kind.renames}


def test_of_t5_s_two_tables_the_encoder_s_own_counts() -> None:
    assert [each.copy for each in T5_ENCODER.renames] == [True]
    assert not any(
        each.copy for kind in KINDS if kind not in (T5_ENCODER, T5_ENCODER_MASKED) for each in kind.renames
    )
    assert CLIP_TEXT_PROJECTED.renames == ()


def test_t5_is_stored_in_units_that_float16_holds() -> None:
    scales = {
        "shared.weight": 1 / 64,
        "encoder.block.3.layer.0.SelfAttention.o.weight": 1 / 64,
        "encoder.block.3.layer.0.SelfAttention.q.weight": 1,
        "encoder.block.3.layer.1.DenseReluDense.wi.weight": 1 / 16,
        "encoder.block.3.layer.1.DenseReluDense.wi_0.weight": 1,
        "encoder.block.3.layer.1.DenseReluDense.wi_1.weight": 1 / 16,
        "encoder.block.3.layer.1.DenseReluDense.wo.weight": 1 / 4,
        "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight": 1,
    }
    assert {name: T5_ENCODER.scale_of(name) for name in scales} == scales
    assert gemma2.STREAM == 1 / 64


@pytest.mark.parametrize(
    ("kind", "class_name", "also"),
    [
        (PIXART_TRANSFORMER, "PixArtTransformer2DModel", ("Transformer2DModel",)),
        (QWEN3_THREE_LAYERS, "Qwen3Model", ("Qwen3ForCausalLM",)),
        (GEMMA2_TEXT, "Gemma2Model", ("Gemma2ForCausalLM",)),
        (CLIP_TEXT_LAYERS, "CLIPTextModel", ()),
        (CLIP_TEXT_PROJECTED, "CLIPTextModelWithProjection", ()),
    ],
)
def test_classes_that_hold_the_same_model(kind: GraphKind, class_name: str, also: tuple[str, ...]) -> None:
    assert (kind.class_name, kind.also) == (class_name, also)


@pytest.mark.parametrize(
    ("kind", "same", "other"),
    [
        (UNET, {"sample_size": 7, "dropout": 0.5, "upcast_attention": True}, {"norm_eps": 1e-3}),
        (CLIP_TEXT, {"projection_dim": 7, "bos_token_id": 1, "dropout": 0.1}, {"eos_token_id": 2}),
        (CLIP_TEXT_PROJECTED, {"torch_dtype": "float16"}, {"projection_dim": 7}),
        (DECODER, {"scaling_factor": 1, "latents_mean": [0]}, {"act_fn": "relu"}),
        (TINY_DECODER, {"latent_shift": 1, "block_out_channels": [7]}, {"upsample_fn": "bilinear"}),
        (DC_DECODER, {"encoder_layers_per_block": [7], "anything": 1}, {"decoder_act_fns": "relu"}),
        (FLUX2_DECODER, {"batch_norm_momentum": 0.3, "force_upcast": True}, {"batch_norm_eps": 1e-3}),
        (T5_ENCODER, {"n_positions": 7, "eos_token_id": 3, "is_gated_act": True}, {"num_layers": 7}),
        (SD3_TRANSFORMER, {"sample_size": 7}, {"pos_embed_max_size": 7}),
        (FLUX_TRANSFORMER, {"axes_dims_rope": [7]}, {"num_layers": 7}),
        (FLUX2, {"axes_dims_rope": [7], "rope_theta": 7}, {"mlp_ratio": 7}),
        (Z_IMAGE, {"axes_dims": [7], "axes_lens": [7], "n_kv_heads": 7, "rope_theta": 7}, {"t_scale": 7}),
        (
            PIXART_TRANSFORMER,
            {"sample_size": 7, "interpolation_scale": 7, "dropout": 0.1, "use_additional_conditions": False},
            {"attention_bias": False},
        ),
        (SANA_TRANSFORMER, {"sample_size": 7, "timestep_scale": 7, "dropout": 1}, {"mlp_ratio": 7}),
        (QWEN3_LAST_BUT_ONE, {"max_window_layers": 7, "rope_theta": 10_000}, {"rope_theta": 7}),
        (GEMMA2_TEXT, {"layer_types": ["x"], "rope_theta": 10_000}, {"rope_parameters": {"rope_theta": 7}}),
    ],
)
def test_what_does_not_shape_a_graph_makes_no_other(
    kind: GraphKind, same: dict[str, Any], other: dict[str, Any]
) -> None:
    base = {"use_additional_conditions": False} if kind is PIXART_TRANSFORMER else {}
    assert kind.graph_config(same) == kind.graph_config(base)
    assert kind.graph_config({**base, **other}) != kind.graph_config(base)


def test_whether_pixart_reads_the_size_is_a_matter_of_its_own() -> None:
    reads = pixart_transformer.reads_size
    assert reads({})
    assert reads({"sample_size": 128, "use_additional_conditions": None})
    assert not reads({"sample_size": 64})
    assert reads({"sample_size": 64, "use_additional_conditions": True})
    assert not reads({"sample_size": 128, "use_additional_conditions": False})
    graph = PIXART_TRANSFORMER.graph_config
    assert (
        graph({"sample_size": 128})
        == graph({"use_additional_conditions": True})
        != graph({"sample_size": 64})
    )


def test_how_far_sana_s_positions_reach_is_no_part_of_its_graph() -> None:
    graph = SANA_TRANSFORMER.graph_config
    assert graph({"interpolation_scale": 2}) == graph({"interpolation_scale": 1.0}) != graph({})
    assert sana_transformer.side_of({}) == sana_transformer.side_of({"sample_size": None}) == 32
    assert sana_transformer.side_of({"sample_size": 64}) == 64

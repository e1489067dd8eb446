"""Bounds, kinds and lists of the fields of configurations, the same for a name in every model."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from conversions.submodels import config_fields
from conversions.typed_config import Field

BOUNDS: dict[tuple[str, float, float], str] = {
    ("number", -1e6, 1e6): """
        guidance_embeds_scale latent_shift latents_mean logit_scale_init_value shift_factor
        timestep_scale
    """,
    ("number", -16, 16): """
        freq_shift
    """,
    ("number", 0, 1): """
        attention_dropout batch_norm_momentum classifier_dropout dropout dropout_rate
    """,
    ("number", 0, 1e6): """
        initializer_factor initializer_range
    """,
    ("number", 1e-20, 1): """
        batch_norm_eps eps layer_norm_eps layer_norm_epsilon norm_eps rms_norm_eps
    """,
    ("number", 1e-20, 1e3): """
        mlp_ratio
    """,
    ("number", 1e-20, 1e6): """
        attn_logit_softcapping final_logit_softcapping interpolation_scale latent_magnitude latents_std
        mid_block_scale_factor query_pre_attn_scalar resnet_out_scale_factor scaling_factor
    """,
    ("number", 1e-20, 1e12): """
        rope_theta t_scale
    """,
    ("object", -math.inf, math.inf): """
        rope_parameters rope_scaling text_config text_config_dict vision_config vision_config_dict
    """,
    ("text", -math.inf, math.inf): """
        _class_name _diffusers_version _name_or_path act_fn activation_fn addition_embed_type
        architectures attention_type class_embed_type cross_attention_norm decoder_act_fns
        decoder_block_types decoder_conv_act_fn decoder_norm_types down_block_types
        downsample_block_type dtype encoder_block_types encoder_hid_dim_type feed_forward_proj
        hidden_act hidden_activation layer_types mid_block_type model_type norm_type qk_norm
        resnet_time_scale_shift rope_type time_embedding_act_fn time_embedding_type timestep_post_act
        torch_dtype transformers_version type up_block_types upsample_block_type upsample_fn
    """,
    ("true or false", -math.inf, math.inf): """
        attention_bias center_input_sample class_embeddings_concat decoder_in_shortcut
        dual_cross_attention encoder_out_shortcut flip_sin_to_cos force_upcast guidance_embeds
        is_decoder is_encoder_decoder mid_block_add_attention mid_block_only_cross_attention
        norm_elementwise_affine only_cross_attention qk_norm resnet_skip_time_act tie_word_embeddings
        upcast_attention use_additional_conditions use_bidirectional_attention use_cache
        use_linear_projection use_post_quant_conv use_quant_conv use_sliding_window
    """,
    ("whole number", -1, 2_000_000): """
        pad_token_id
    """,
    ("whole number", 0, 16): """
        downsample_padding
    """,
    ("whole number", 0, 200): """
        decoder_layers_per_block dual_attention_layers encoder_layers_per_block max_window_layers
        n_refiner_layers num_decoder_layers num_layers num_single_layers
        reverse_transformer_layers_per_block transformer_layers_per_block
    """,
    ("whole number", 0, 2_000_000): """
        bos_token_id eos_token_id
    """,
    ("whole number", 0, 65_536): """
        projection_dim
    """,
    ("whole number", 1, 10_000_000): """
        sliding_window
    """,
    ("whole number", 1, 1_024): """
        addition_embed_type_num_heads n_heads n_kv_heads num_attention_heads num_cross_attention_heads
        num_heads num_key_value_heads
    """,
    ("whole number", 1, 16): """
        upsampling_scaling_factor
    """,
    ("whole number", 1, 200): """
        layers_per_block n_layers num_decoder_blocks num_encoder_blocks num_hidden_layers num_layers
    """,
    ("whole number", 1, 2_000_000): """
        num_class_embeds
    """,
    ("whole number", 1, 31): """
        conv_in_kernel conv_out_kernel
    """,
    ("whole number", 1, 4_096): """
        image_size in_channels latent_channels out_channels patch_size
    """,
    ("whole number", 1, 63): """
        decoder_qkv_multiscales encoder_qkv_multiscales
    """,
    ("whole number", 1, 64): """
        all_f_patch_size all_patch_size num_channels patch_size
    """,
    ("whole number", 1, 65_536): """
        addition_time_embed_dim attention_head_dim axes_lens block_out_channels cap_feat_dim
        caption_channels caption_projection_dim cross_attention_dim cross_attention_head_dim d_ff d_kv
        d_model decoder_block_out_channels dim encoder_block_out_channels encoder_hid_dim hidden_size
        intermediate_size joint_attention_dim norm_num_groups num_embeds_ada_norm pooled_projection_dim
        pos_embed_max_size projection_class_embeddings_input_dim projection_dim sample_size
        siglip_feat_dim time_cond_proj_dim time_embedding_dim
    """,
    ("whole number", 2, 200): """
        num_hidden_layers
    """,
    ("whole number", 2, 65_536): """
        attention_head_dim axes_dims axes_dims_rope head_dim timestep_guidance_channels
    """,
    ("whole number", 3, 10_000_000): """
        max_position_embeddings
    """,
    ("whole number", 3, 2_000_000): """
        vocab_size
    """,
    ("whole number", 3, 65_536): """
        max_position_embeddings
    """,
    ("whole number", 4, 65_536): """
        relative_attention_max_distance relative_attention_num_buckets
    """,
}
LISTS_ALWAYS = """
    all_f_patch_size all_patch_size architectures axes_dims axes_dims_rope axes_lens block_out_channels
    decoder_block_out_channels decoder_layers_per_block decoder_qkv_multiscales down_block_types
    dual_attention_layers encoder_block_out_channels encoder_layers_per_block encoder_qkv_multiscales
    latents_mean latents_std layer_types num_decoder_blocks num_encoder_blocks patch_size up_block_types
"""
LISTS_ALLOWED = """
    attention_head_dim cross_attention_dim decoder_act_fns decoder_block_types decoder_norm_types
    encoder_block_types eos_token_id layers_per_block num_attention_heads only_cross_attention
    reverse_transformer_layers_per_block sample_size transformer_layers_per_block
"""


def declared() -> Iterator[Field]:
    """Every field that is declared, those of nested objects too."""

    def within(fields: Iterable[Field]) -> Iterator[Field]:
        for field in fields:
            yield field
            yield from within(field.fields)

    for tables in vars(config_fields).values():
        if isinstance(tables, tuple) and tables and all(isinstance(each, Field) for each in tables):
            yield from within(tables)


def test_bounds_lie_above_every_published_model_and_below_what_exhausts_memory() -> None:
    found: dict[tuple[str, float, float], set[str]] = {}
    for field in declared():
        found.setdefault((field.kind, field.minimum, field.maximum), set()).add(field.name)
    assert found == {bounds: set(names.split()) for bounds, names in BOUNDS.items()}


def test_some_fields_are_lists_and_some_may_be() -> None:
    found: dict[str, set[str]] = {}
    for field in declared():
        found.setdefault(field.lists, set()).add(field.name)
    assert found["always"] == set(LISTS_ALWAYS.split())
    assert found["allowed"] == set(LISTS_ALLOWED.split())


def test_a_field_without_a_default_may_be_null_and_texts_are_any() -> None:
    for field in declared():
        assert field.default is not None or field.nullable
        assert not field.choices
    own = {field.name for field in declared() if field.nullable and field.default is not None}
    assert own == {
        *("bos_token_id", "pad_token_id", "eos_token_id", "mid_block_type", "norm_num_groups"),
        *("out_channels", "cross_attention_dim", "sliding_window"),
        *("attn_logit_softcapping", "final_logit_softcapping"),
    }

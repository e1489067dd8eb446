"""The fields of the components' configurations: types, defaults, and bounds above every published model.

Source of names, types and defaults: the signatures of diffusers 0.42's ``UNet2DConditionModel`` and
``AutoencoderKL``, and transformers 5.23's ``CLIPTextConfig``, ``CLIPVisionConfig`` and ``CLIPConfig``; a test
compares them with the defaults of the submodels. Where those take ``None`` as a value of its own,
``nullable`` is set.
"""

from __future__ import annotations

from conversions.typed_config import flag, nested, number, text, whole

# Published: hidden sizes to 10,240, 80 layers, vocabularies of 262,144 tokens, 128 heads.
_WIDTH, _LAYERS, _VOCABULARY, _HEADS = 65_536, 200, 2_000_000, 1_024
# Sides of images and latents, in pixels or in latents.
_SIDE, _SMALL = 65_536, 1e-20

_DIFFUSERS_NOTES = (
    text("_class_name", None),
    text("_diffusers_version", None),
    text("_name_or_path", None),
)
_TRANSFORMERS_NOTES = (
    text("_name_or_path", None),
    text("architectures", None, lists="always"),
    text("dtype", None),
    text("model_type", None),
    text("torch_dtype", None),
    text("transformers_version", None),
)

_TRANSFORMER = (
    *_TRANSFORMERS_NOTES,
    number("attention_dropout", 0.0, 0, 1),
    text("hidden_act", "quick_gelu"),
    number("initializer_factor", 1.0, 0, 1e6),
    number("initializer_range", 0.02, 0, 1e6),
    number("layer_norm_eps", 1e-5, _SMALL, 1),
)

CLIP_TEXT = (
    *_TRANSFORMER,
    whole("vocab_size", 49408, 3, _VOCABULARY),
    whole("hidden_size", 512, 1, _WIDTH),
    whole("intermediate_size", 2048, 1, _WIDTH),
    whole("num_hidden_layers", 12, 1, _LAYERS),
    whole("num_attention_heads", 8, 1, _HEADS),
    whole("max_position_embeddings", 77, 3, _WIDTH),
    whole("projection_dim", 512, 0, _WIDTH),
    whole("eos_token_id", 49407, 0, _VOCABULARY),
    whole("bos_token_id", 49406, 0, _VOCABULARY, nullable=True),
    whole("pad_token_id", 1, -1, _VOCABULARY, nullable=True),
)

_CLIP_VISION = (
    *_TRANSFORMER,
    whole("hidden_size", 768, 1, _WIDTH),
    whole("intermediate_size", 3072, 1, _WIDTH),
    whole("num_hidden_layers", 12, 1, _LAYERS),
    whole("num_attention_heads", 12, 1, _HEADS),
    whole("num_channels", 3, 1, 64),
    whole("image_size", 224, 1, 4096),
    whole("patch_size", 32, 1, 4096),
    whole("projection_dim", 512, 0, _WIDTH),
)

T5 = (
    *_TRANSFORMERS_NOTES,
    whole("vocab_size", 32128, 3, _VOCABULARY),
    whole("d_model", 512, 1, _WIDTH),
    whole("d_kv", 64, 1, _WIDTH),
    whole("d_ff", 2048, 1, _WIDTH),
    whole("num_layers", 6, 1, _LAYERS),
    whole("num_decoder_layers", None, 0, _LAYERS),
    whole("num_heads", 8, 1, _HEADS),
    whole("relative_attention_num_buckets", 32, 4, _WIDTH),
    whole("relative_attention_max_distance", 128, 4, _WIDTH),
    number("dropout_rate", 0.1, 0, 1),
    number("layer_norm_epsilon", 1e-6, _SMALL, 1),
    number("initializer_factor", 1.0, 0, 1e6),
    text("feed_forward_proj", "relu"),
    flag("is_encoder_decoder", True),
    flag("use_cache", True),
    flag("is_decoder", False),
    whole("pad_token_id", 0, -1, _VOCABULARY, nullable=True),
    whole("eos_token_id", 1, 0, _VOCABULARY, nullable=True, lists="allowed"),
    number("classifier_dropout", 0.0, 0, 1),
)

SAFETY_CHECKER = (
    *_TRANSFORMERS_NOTES,
    number("initializer_factor", 1.0, 0, 1e6),
    whole("projection_dim", 512, 1, _WIDTH),
    number("logit_scale_init_value", 2.6592, -1e6, 1e6),
    nested("text_config", CLIP_TEXT),
    nested("text_config_dict", CLIP_TEXT),
    nested("vision_config", _CLIP_VISION),
    nested("vision_config_dict", _CLIP_VISION),
)

UNET = (
    *_DIFFUSERS_NOTES,
    whole("sample_size", None, 1, _SIDE, lists="allowed"),
    whole("in_channels", 4, 1, 4096),
    whole("out_channels", 4, 1, 4096),
    flag("center_input_sample", False),
    flag("flip_sin_to_cos", True),
    number("freq_shift", 0, -16, 16),
    text("mid_block_type", "UNetMidBlock2DCrossAttn", nullable=True),
    text("down_block_types", (*("CrossAttnDownBlock2D",) * 3, "DownBlock2D"), lists="always"),
    text("up_block_types", ("UpBlock2D", *("CrossAttnUpBlock2D",) * 3), lists="always"),
    flag("only_cross_attention", False, lists="allowed"),
    whole("block_out_channels", (320, 640, 1280, 1280), 1, _WIDTH, lists="always"),
    whole("layers_per_block", 2, 1, _LAYERS, lists="allowed"),
    whole("downsample_padding", 1, 0, 16),
    number("mid_block_scale_factor", 1, _SMALL, 1e6),
    number("dropout", 0.0, 0, 1),
    text("act_fn", "silu"),
    whole("norm_num_groups", 32, 1, _WIDTH, nullable=True),
    number("norm_eps", 1e-5, _SMALL, 1),
    whole("cross_attention_dim", 1280, 1, _WIDTH, lists="allowed"),
    whole("transformer_layers_per_block", 1, 0, _LAYERS, lists="allowed"),
    whole("reverse_transformer_layers_per_block", None, 0, _LAYERS, lists="allowed"),
    whole("encoder_hid_dim", None, 1, _WIDTH),
    text("encoder_hid_dim_type", None),
    whole("attention_head_dim", 8, 1, _WIDTH, lists="allowed"),
    whole("num_attention_heads", None, 1, _HEADS, lists="allowed"),
    flag("dual_cross_attention", False),
    flag("use_linear_projection", False),
    text("class_embed_type", None),
    text("addition_embed_type", None),
    whole("addition_time_embed_dim", None, 1, _WIDTH),
    whole("num_class_embeds", None, 1, _VOCABULARY),
    flag("upcast_attention", False),
    text("resnet_time_scale_shift", "default"),
    flag("resnet_skip_time_act", False),
    number("resnet_out_scale_factor", 1.0, _SMALL, 1e6),
    text("time_embedding_type", "positional"),
    whole("time_embedding_dim", None, 1, _WIDTH),
    text("time_embedding_act_fn", None),
    text("timestep_post_act", None),
    whole("time_cond_proj_dim", None, 1, _WIDTH),
    whole("conv_in_kernel", 3, 1, 31),
    whole("conv_out_kernel", 3, 1, 31),
    whole("projection_class_embeddings_input_dim", None, 1, _WIDTH),
    text("attention_type", "default"),
    flag("class_embeddings_concat", False),
    flag("mid_block_only_cross_attention", None),
    text("cross_attention_norm", None),
    whole("addition_embed_type_num_heads", 64, 1, _HEADS),
)

_AUTOENCODER = (
    *_DIFFUSERS_NOTES,
    whole("in_channels", 3, 1, 4096),
    whole("out_channels", 3, 1, 4096),
    text("act_fn", "silu"),
    whole("norm_num_groups", 32, 1, _WIDTH),
    flag("use_quant_conv", True),
    flag("use_post_quant_conv", True),
    flag("mid_block_add_attention", True),
)
VAE = (
    *_AUTOENCODER,
    text("down_block_types", ("DownEncoderBlock2D",), lists="always"),
    text("up_block_types", ("UpDecoderBlock2D",), lists="always"),
    whole("block_out_channels", (64,), 1, _WIDTH, lists="always"),
    whole("layers_per_block", 1, 1, _LAYERS),
    whole("latent_channels", 4, 1, 4096),
    whole("sample_size", 32, 1, _SIDE, lists="allowed"),
    number("scaling_factor", 0.18215, _SMALL, 1e6),
    number("shift_factor", None, -1e6, 1e6),
    number("latents_mean", None, -1e6, 1e6, lists="always"),
    number("latents_std", None, _SMALL, 1e6, lists="always"),
    flag("force_upcast", True),
)

SD3_TRANSFORMER = (
    *_DIFFUSERS_NOTES,
    whole("sample_size", 128, 1, _SIDE),
    whole("patch_size", 2, 1, 64),
    whole("in_channels", 16, 1, 4096),
    whole("num_layers", 18, 1, _LAYERS),
    whole("attention_head_dim", 64, 1, _WIDTH),
    whole("num_attention_heads", 18, 1, _HEADS),
    whole("joint_attention_dim", 4096, 1, _WIDTH),
    whole("caption_projection_dim", 1152, 1, _WIDTH),
    whole("pooled_projection_dim", 2048, 1, _WIDTH),
    whole("out_channels", 16, 1, 4096, nullable=True),
    whole("pos_embed_max_size", 96, 1, _SIDE),
    whole("dual_attention_layers", (), 0, _LAYERS, lists="always"),
    text("qk_norm", None),
)

_PATCH_TRANSFORMER = (
    *_DIFFUSERS_NOTES,
    number("dropout", 0.0, 0, 1),
    flag("norm_elementwise_affine", False),
    number("norm_eps", 1e-6, _SMALL, 1),
    number("interpolation_scale", None, _SMALL, 1e6),
)
PIXART_TRANSFORMER = (
    *_PATCH_TRANSFORMER,
    whole("num_attention_heads", 16, 1, _HEADS),
    whole("attention_head_dim", 72, 1, _WIDTH),
    whole("in_channels", 4, 1, 4096),
    whole("out_channels", 8, 1, 4096, nullable=True),
    whole("num_layers", 28, 1, _LAYERS),
    whole("norm_num_groups", 32, 1, _WIDTH),
    whole("cross_attention_dim", 1152, 1, _WIDTH),
    flag("attention_bias", True),
    whole("sample_size", 128, 1, _SIDE),
    whole("patch_size", 2, 1, 64),
    text("activation_fn", "gelu-approximate"),
    whole("num_embeds_ada_norm", 1000, 1, _WIDTH),
    flag("upcast_attention", False),
    text("norm_type", "ada_norm_single"),
    flag("use_additional_conditions", None),
    whole("caption_channels", None, 1, _WIDTH),
    text("attention_type", "default"),
)

FLUX_TRANSFORMER = (
    *_DIFFUSERS_NOTES,
    whole("patch_size", 1, 1, 64),
    whole("in_channels", 64, 1, 4096),
    whole("out_channels", None, 1, 4096),
    whole("num_layers", 19, 0, _LAYERS),
    whole("num_single_layers", 38, 0, _LAYERS),
    whole("attention_head_dim", 128, 2, _WIDTH),
    whole("num_attention_heads", 24, 1, _HEADS),
    whole("joint_attention_dim", 4096, 1, _WIDTH),
    whole("pooled_projection_dim", 768, 1, _WIDTH),
    flag("guidance_embeds", False),
    whole("axes_dims_rope", (16, 56, 56), 2, _WIDTH, lists="always"),
)

SANA_TRANSFORMER = (
    *_PATCH_TRANSFORMER,
    whole("in_channels", 32, 1, 4096),
    whole("out_channels", 32, 1, 4096, nullable=True),
    whole("num_attention_heads", 70, 1, _HEADS),
    whole("attention_head_dim", 32, 1, _WIDTH),
    whole("num_layers", 20, 1, _LAYERS),
    whole("num_cross_attention_heads", 20, 1, _HEADS),
    whole("cross_attention_head_dim", 112, 1, _WIDTH),
    whole("cross_attention_dim", 2240, 1, _WIDTH, nullable=True),
    whole("caption_channels", 2304, 1, _WIDTH),
    number("mlp_ratio", 2.5, _SMALL, 1e3),
    flag("attention_bias", False),
    whole("sample_size", 32, 1, _SIDE),
    whole("patch_size", 1, 1, 64),
    flag("guidance_embeds", False),
    number("guidance_embeds_scale", 0.1, -1e6, 1e6),
    text("qk_norm", None),
    number("timestep_scale", 1.0, -1e6, 1e6),
)

_DC_CHANNELS, _DC_SCALES = (128, 256, 512, 512, 1024, 1024), ((), (), (), (5,), (5,), (5,))
AUTOENCODER_DC = (
    *_DIFFUSERS_NOTES,
    whole("in_channels", 3, 1, 4096),
    whole("latent_channels", 32, 1, 4096),
    whole("attention_head_dim", 32, 1, _WIDTH),
    text("encoder_block_types", "ResBlock", lists="allowed"),
    text("decoder_block_types", "ResBlock", lists="allowed"),
    whole("encoder_block_out_channels", _DC_CHANNELS, 1, _WIDTH, lists="always"),
    whole("decoder_block_out_channels", _DC_CHANNELS, 1, _WIDTH, lists="always"),
    whole("encoder_layers_per_block", (2, 2, 2, 3, 3, 3), 0, _LAYERS, lists="always"),
    whole("decoder_layers_per_block", (3, 3, 3, 3, 3, 3), 0, _LAYERS, lists="always"),
    whole("encoder_qkv_multiscales", _DC_SCALES, 1, 63, lists="always"),
    whole("decoder_qkv_multiscales", _DC_SCALES, 1, 63, lists="always"),
    text("upsample_block_type", "pixel_shuffle"),
    text("downsample_block_type", "pixel_unshuffle"),
    text("decoder_norm_types", "rms_norm", lists="allowed"),
    text("decoder_act_fns", "silu", lists="allowed"),
    flag("encoder_out_shortcut", True),
    flag("decoder_in_shortcut", True),
    text("decoder_conv_act_fn", "relu"),
    number("scaling_factor", 1.0, _SMALL, 1e6),
)

TINY_VAE = (
    *_DIFFUSERS_NOTES,
    whole("in_channels", 3, 1, 4096),
    whole("out_channels", 3, 1, 4096),
    whole("encoder_block_out_channels", (64,) * 4, 1, _WIDTH, lists="always"),
    whole("decoder_block_out_channels", (64,) * 4, 1, _WIDTH, lists="always"),
    text("act_fn", "relu"),
    text("upsample_fn", "nearest"),
    whole("latent_channels", 4, 1, 4096),
    whole("upsampling_scaling_factor", 2, 1, 16),
    whole("num_encoder_blocks", (1, 3, 3, 3), 1, _LAYERS, lists="always"),
    whole("num_decoder_blocks", (3, 3, 3, 1), 1, _LAYERS, lists="always"),
    number("latent_magnitude", 3, _SMALL, 1e6),
    number("latent_shift", 0.5, -1e6, 1e6),
    number("scaling_factor", 1.0, _SMALL, 1e6),
    number("shift_factor", 0.0, -1e6, 1e6),
    flag("force_upcast", False),
)

_LANGUAGE_MODEL = (
    *_TRANSFORMERS_NOTES,
    number("attention_dropout", 0.0, 0, 1),
    number("initializer_range", 0.02, 0, 1e6),
    number("rms_norm_eps", 1e-6, _SMALL, 1),
    flag("attention_bias", False),
    flag("use_cache", True),
    whole("sliding_window", 4096, 1, 10_000_000, nullable=True),
    text("layer_types", None, lists="always"),
    number("rope_theta", None, _SMALL, 1e12),
    nested("rope_parameters", (number("rope_theta", None, _SMALL, 1e12), text("rope_type", None))),
    nested("rope_scaling", (text("rope_type", None), text("type", None))),
)
QWEN3 = (
    *_LANGUAGE_MODEL,
    text("hidden_act", "silu"),
    whole("vocab_size", 151936, 3, _VOCABULARY),
    whole("hidden_size", 4096, 1, _WIDTH),
    whole("intermediate_size", 22016, 1, _WIDTH),
    whole("num_hidden_layers", 32, 2, _LAYERS),
    whole("num_attention_heads", 32, 1, _HEADS),
    whole("num_key_value_heads", 32, 1, _HEADS),
    whole("head_dim", 128, 2, _WIDTH),
    whole("max_position_embeddings", 32768, 3, 10_000_000),
    flag("tie_word_embeddings", False),
    flag("use_sliding_window", False),
    whole("max_window_layers", 28, 0, _LAYERS),
)

GEMMA2 = (
    *_LANGUAGE_MODEL,
    text("hidden_act", None),
    text("hidden_activation", "gelu_pytorch_tanh"),
    whole("vocab_size", 256000, 3, _VOCABULARY),
    whole("hidden_size", 2304, 1, _WIDTH),
    whole("intermediate_size", 9216, 1, _WIDTH),
    whole("num_hidden_layers", 26, 1, _LAYERS),
    whole("num_attention_heads", 8, 1, _HEADS),
    whole("num_key_value_heads", 4, 1, _HEADS),
    whole("head_dim", 256, 2, _WIDTH),
    whole("max_position_embeddings", 8192, 3, 10_000_000),
    flag("tie_word_embeddings", True),
    flag("use_bidirectional_attention", None),
    number("query_pre_attn_scalar", 256, _SMALL, 1e6),
    number("attn_logit_softcapping", 50.0, _SMALL, 1e6, nullable=True),
    number("final_logit_softcapping", 30.0, _SMALL, 1e6, nullable=True),
)

Z_IMAGE = (
    *_DIFFUSERS_NOTES,
    whole("all_patch_size", (2,), 1, 64, lists="always"),
    whole("all_f_patch_size", (1,), 1, 64, lists="always"),
    whole("in_channels", 16, 1, 4096),
    whole("dim", 3840, 1, _WIDTH),
    whole("n_layers", 30, 1, _LAYERS),
    whole("n_refiner_layers", 2, 0, _LAYERS),
    whole("n_heads", 30, 1, _HEADS),
    whole("n_kv_heads", 30, 1, _HEADS),
    number("norm_eps", 1e-5, _SMALL, 1),
    flag("qk_norm", True),
    whole("cap_feat_dim", 2560, 1, _WIDTH),
    whole("siglip_feat_dim", None, 1, _WIDTH),
    number("rope_theta", 256.0, _SMALL, 1e12),
    number("t_scale", 1000.0, _SMALL, 1e12),
    whole("axes_dims", (32, 48, 48), 2, _WIDTH, lists="always"),
    whole("axes_lens", (1024, 512, 512), 1, _WIDTH, lists="always"),
)

FLUX2 = (
    *_DIFFUSERS_NOTES,
    whole("patch_size", 1, 1, 64),
    whole("in_channels", 128, 1, 4096),
    whole("out_channels", None, 1, 4096),
    whole("num_layers", 8, 0, _LAYERS),
    whole("num_single_layers", 48, 0, _LAYERS),
    whole("attention_head_dim", 128, 2, _WIDTH),
    whole("num_attention_heads", 48, 1, _HEADS),
    whole("joint_attention_dim", 15360, 1, _WIDTH),
    whole("timestep_guidance_channels", 256, 2, _WIDTH),
    number("mlp_ratio", 3.0, _SMALL, 1e3),
    whole("axes_dims_rope", (32, 32, 32, 32), 2, _WIDTH, lists="always"),
    number("rope_theta", 2000, _SMALL, 1e12),
    number("eps", 1e-6, _SMALL, 1),
    flag("guidance_embeds", True),
)

FLUX2_VAE = (
    *_AUTOENCODER,
    text("down_block_types", ("DownEncoderBlock2D",) * 4, lists="always"),
    text("up_block_types", ("UpDecoderBlock2D",) * 4, lists="always"),
    whole("block_out_channels", (128, 256, 512, 512), 1, _WIDTH, lists="always"),
    whole("decoder_block_out_channels", None, 1, _WIDTH, lists="always"),
    whole("layers_per_block", 2, 1, _LAYERS),
    whole("latent_channels", 32, 1, 4096),
    whole("sample_size", 1024, 1, _SIDE, lists="allowed"),
    number("batch_norm_eps", 1e-4, _SMALL, 1),
    number("batch_norm_momentum", 0.1, 0, 1),
    whole("patch_size", (2, 2), 1, 64, lists="always"),
)

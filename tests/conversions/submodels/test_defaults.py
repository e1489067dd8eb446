"""What a configuration that lacks a field means is what the libraries mean by it."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.torch


def test_the_tables_of_defaults_are_those_of_the_libraries() -> None:
    import inspect

    from diffusers import (
        AutoencoderDC,
        AutoencoderKL,
        AutoencoderKLFlux2,
        AutoencoderTiny,
        Flux2Transformer2DModel,
        FluxTransformer2DModel,
        PixArtTransformer2DModel,
        SanaTransformer2DModel,
        SD3Transformer2DModel,
        UNet2DConditionModel,
        ZImageTransformer2DModel,
    )
    from transformers import CLIPTextConfig, CLIPVisionConfig, Gemma2Config, Qwen3Config, T5Config

    from conversions.submodels import (
        autoencoder_dc,
        clip_text,
        flux2,
        flux2_vae,
        flux_transformer,
        gemma2,
        pixart_transformer,
        qwen3,
        safety_checker,
        sana_transformer,
        sd3_transformer,
        t5_encoder,
        tiny_vae,
        unet,
        vae,
        z_image,
    )

    def plain(value: object) -> object:
        return [plain(each) for each in value] if isinstance(value, list | tuple) else value

    for table, irrelevant, library in (
        (unet.DEFAULTS, unet.UNET.irrelevant, UNet2DConditionModel),
        (vae.DEFAULTS, vae.IRRELEVANT, AutoencoderKL),
        (tiny_vae.DEFAULTS, tiny_vae.IRRELEVANT, AutoencoderTiny),
        (flux2.DEFAULTS, flux2.IRRELEVANT, Flux2Transformer2DModel),
        (flux2_vae.DEFAULTS, flux2_vae.IRRELEVANT, AutoencoderKLFlux2),
        (flux_transformer.DEFAULTS, flux_transformer.IRRELEVANT, FluxTransformer2DModel),
        (pixart_transformer.DEFAULTS, pixart_transformer.IRRELEVANT, PixArtTransformer2DModel),
        (sana_transformer.DEFAULTS, sana_transformer.IRRELEVANT, SanaTransformer2DModel),
        (autoencoder_dc.DEFAULTS, autoencoder_dc.IRRELEVANT, AutoencoderDC),
        (sd3_transformer.DEFAULTS, sd3_transformer.SD3_TRANSFORMER.irrelevant, SD3Transformer2DModel),
        (z_image.DEFAULTS, z_image.IRRELEVANT, ZImageTransformer2DModel),
    ):
        signature = inspect.signature(library.__init__).parameters
        known = {
            name: plain(each.default)
            for name, each in signature.items()
            if name != "self" and name not in irrelevant
        }
        assert {name: plain(value) for name, value in table.items()} == known
    for table, config in (
        (clip_text.DEFAULTS, CLIPTextConfig()),
        (safety_checker.VISION_DEFAULTS, CLIPVisionConfig()),
        (qwen3.DEFAULTS, Qwen3Config()),
        (gemma2.DEFAULTS, Gemma2Config()),
        (t5_encoder.DEFAULTS, T5Config()),
    ):
        assert {name: getattr(config, name) for name in table} == table

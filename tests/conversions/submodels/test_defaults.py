"""What a configuration that lacks a field means is what the libraries mean by it."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping
from typing import Any

import pytest

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

pytestmark = pytest.mark.torch

SIGNATURES: dict[str, tuple[Mapping[str, Any], Collection[str]]] = {
    "UNet2DConditionModel": (unet.DEFAULTS, unet.UNET.irrelevant),
    "AutoencoderKL": (vae.DEFAULTS, vae.IRRELEVANT),
    "AutoencoderTiny": (tiny_vae.DEFAULTS, tiny_vae.IRRELEVANT),
    "Flux2Transformer2DModel": (flux2.DEFAULTS, flux2.IRRELEVANT),
    "AutoencoderKLFlux2": (flux2_vae.DEFAULTS, flux2_vae.IRRELEVANT),
    "FluxTransformer2DModel": (flux_transformer.DEFAULTS, flux_transformer.IRRELEVANT),
    "PixArtTransformer2DModel": (pixart_transformer.DEFAULTS, pixart_transformer.IRRELEVANT),
    "SanaTransformer2DModel": (sana_transformer.DEFAULTS, sana_transformer.IRRELEVANT),
    "AutoencoderDC": (autoencoder_dc.DEFAULTS, autoencoder_dc.IRRELEVANT),
    "SD3Transformer2DModel": (sd3_transformer.DEFAULTS, sd3_transformer.SD3_TRANSFORMER.irrelevant),
    "ZImageTransformer2DModel": (z_image.DEFAULTS, z_image.IRRELEVANT),
}
CONFIGURATIONS: dict[str, Mapping[str, Any]] = {
    "CLIPTextConfig": clip_text.DEFAULTS,
    "CLIPVisionConfig": safety_checker.VISION_DEFAULTS,
    "Qwen3Config": qwen3.DEFAULTS,
    "Gemma2Config": gemma2.DEFAULTS,
    "T5Config": t5_encoder.DEFAULTS,
}


@pytest.fixture(scope="module", autouse=True)
def _libraries() -> None:
    """Import the libraries' classes, which takes seconds, before a test's time counts."""
    import diffusers
    import transformers

    for library, names in ((diffusers, SIGNATURES), (transformers, CONFIGURATIONS)):
        assert all(hasattr(library, name) for name in names)


def plain(value: object) -> object:
    return [plain(each) for each in value] if isinstance(value, list | tuple) else value


@pytest.mark.parametrize("name", SIGNATURES)
def test_fields_of_diffusers(name: str) -> None:
    import diffusers

    table, irrelevant = SIGNATURES[name]
    signature = inspect.signature(getattr(diffusers, name).__init__).parameters
    known = {
        field: plain(each.default)
        for field, each in signature.items()
        if field != "self" and field not in irrelevant
    }
    assert {field: plain(value) for field, value in table.items()} == known


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_fields_of_transformers(name: str) -> None:
    import transformers

    config = getattr(transformers, name)()
    table = CONFIGURATIONS[name]
    assert {field: getattr(config, field) for field in table} == table

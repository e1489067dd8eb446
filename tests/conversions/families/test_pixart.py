"""PixArt beyond the contract: places, conditions and prompts as diffusers has them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from conversions.families.pixart import SIGMA, cleaned, recipe
from conversions.family import PipelineConfigs
from conversions.graph_kind import Config
from conversions.submodels.pixart_transformer import position_table, reads_size, unsupported


@pytest.mark.torch
@pytest.mark.parametrize(
    ("config", "rows", "columns"),
    [
        ({"sample_size": 16, "interpolation_scale": 2}, 4, 12),
        ({"sample_size": 64, "interpolation_scale": 0.5}, 32, 32),
        ({"sample_size": 128}, 80, 48),
        ({"sample_size": 32}, 3, 5),
    ],
)
def test_the_places_of_patches_are_those_of_diffusers(config: Config, rows: int, columns: int) -> None:
    import torch
    from diffusers import PixArtTransformer2DModel

    small = {"num_attention_heads": 2, "attention_head_dim": 16, "num_layers": 1, "cross_attention_dim": 32}
    patches = PixArtTransformer2DModel(**small, **config).pos_embed
    with torch.no_grad():
        patches.proj.weight.zero_()
        patches.proj.bias.zero_()
        expected = patches(torch.zeros(1, 4, 2 * rows, 2 * columns))[0].numpy()
    assert np.abs(position_table({**small, **config}, rows, columns) - expected).max() < 1e-6


def test_the_denoiser_reads_the_size_where_diffusers_says_so() -> None:
    assert reads_size({"sample_size": 128})
    assert reads_size({})
    assert not reads_size({"sample_size": 64})
    assert not reads_size({"sample_size": 128, "use_additional_conditions": False})
    assert not reads_size(SIGMA)


def test_what_belongs_to_another_pipeline_is_named() -> None:
    assert unsupported(SIGMA) == ""
    assert "gated" in unsupported({**SIGMA, "attention_type": "gated"})
    assert "caption" in unsupported({**SIGMA, "caption_channels": None})


@pytest.mark.torch
@pytest.mark.parametrize("prompt", ["  A Red HORSE, 100% Wool \n", "", "ÅNGSTRÖM (2:1)"])
def test_a_prompt_is_read_as_diffusers_reads_it_without_further_libraries(prompt: str) -> None:
    from diffusers import PixArtSigmaPipeline

    process: Any = PixArtSigmaPipeline._text_preprocessing
    assert [cleaned(prompt)] == process(PixArtSigmaPipeline, prompt, clean_caption=False)


def test_alpha_reads_shorter_prompts_and_a_latent_consistency_model_makes_four_steps() -> None:
    def usual(pipeline: str, scheduler: str) -> tuple[int, int, float]:
        parts = {"transformer": SIGMA, "vae": {"block_out_channels": [8] * 4}}
        configs = PipelineConfigs(
            index={"_class_name": pipeline}, components=parts, scheduler={"_class_name": scheduler}
        )
        made = recipe(configs)
        return made.prompt_length, made.defaults.steps, made.defaults.guidance_scale

    assert usual("PixArtSigmaPipeline", "DPMSolverMultistepScheduler") == (300, 20, 4.5)
    assert usual("PixArtAlphaPipeline", "LCMScheduler") == (120, 4, 0.0)

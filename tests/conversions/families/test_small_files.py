"""The small files that a single file lacks: the published ones of the model that its tensors show."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from conversions.family import family_named
from conversions.single_file_layout import FileFacts, SmallFiles

DIFFUSERS, TRANSFORMERS = "diffusers", "transformers"
CLIP, PROJECTED = "CLIPTextModel", "CLIPTextModelWithProjection"
NONE = [None, None]
TRAINED = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "trained_betas": None,
    "steps_offset": 1,
    "skip_prk_steps": True,
}
KL = {
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "layers_per_block": 2,
    "_class_name": "AutoencoderKL",
}
L = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "hidden_act": "quick_gelu",
    "architectures": [CLIP],
}
G = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "hidden_act": "gelu",
    "projection_dim": 1280,
    "architectures": [PROJECTED],
}


def small_files(
    family: str, *, channels: int = 4, tensors: tuple[str, ...] = (), said: str = "", **metadata: str
) -> SmallFiles:
    """Small files of a file whose denoiser shows its inputs alone."""
    table: Any = {
        "input_blocks.0.0.weight": SimpleNamespace(shape=(320, channels, 3, 3)),
        "out.2.weight": SimpleNamespace(shape=(4, 320, 3, 3)),
        "time_embed.0.weight": SimpleNamespace(shape=(1280, 320)),
    }
    layout = family_named(family).single_file
    assert layout is not None
    assert layout.small_files is not None
    named = {f"modelspec.{name}": text for name, text in metadata.items()}
    facts = FileFacts(metadata=named, tensors=frozenset(tensors), prediction_type=said)
    return layout.small_files(table, facts)


def holds(found: Any, **wanted: Any) -> None:
    assert {name: found.get(name, ...) for name in wanted} == wanted


def index_of(pipeline: str, **entries: Any) -> dict[str, Any]:
    return {"_class_name": pipeline, "_diffusers_version": "0.21.0", **entries}


UNET = {"unet": [DIFFUSERS, "UNet2DConditionModel"], "vae": [DIFFUSERS, "AutoencoderKL"]}
TEXT = {"text_encoder": [TRANSFORMERS, CLIP], "tokenizer": [TRANSFORMERS, "CLIPTokenizer"]}
TEXT_2 = {"text_encoder_2": [TRANSFORMERS, PROJECTED], "tokenizer_2": [TRANSFORMERS, "CLIPTokenizer"]}
WITHOUT = {"safety_checker": NONE, "feature_extractor": NONE}
STEPS_OF_1 = {**TRAINED, "clip_sample": False, "set_alpha_to_one": False}


def test_stable_diffusion_1() -> None:
    found = small_files("stable-diffusion")
    assert dict(found.index) == index_of(
        "StableDiffusionPipeline", **TEXT, **UNET, **WITHOUT, scheduler=[DIFFUSERS, "PNDMScheduler"]
    )
    assert found.scheduler == {
        **STEPS_OF_1,
        "_class_name": "PNDMScheduler",
        "prediction_type": "epsilon",
    }
    holds(found.components["text_encoder"], **L)
    holds(found.components["vae"], **KL, sample_size=512, scaling_factor=0.18215, latent_channels=4)
    holds(
        found.components["unet"],
        in_channels=4,
        cross_attention_dim=768,
        sample_size=64,
        block_out_channels=[320, 640, 1280, 1280],
        use_linear_projection=False,
    )
    assert found.notice == ""
    assert set(found.others) == {
        f"tokenizer/{name}"
        for name in ("vocab.json", "merges.txt", "special_tokens_map.json", "tokenizer_config.json")
    }
    assert b'"pad_token": "<|endoftext|>"' in found.others["tokenizer/tokenizer_config.json"]
    masked = small_files("stable-diffusion", channels=9)
    assert masked.index["_class_name"] == "StableDiffusionInpaintPipeline"
    holds(masked.components["unet"], in_channels=9)


@pytest.mark.parametrize(
    ("metadata", "said", "channels", "velocity", "unsure"),
    [
        ({}, "", 4, True, True),
        ({}, "epsilon", 4, False, False),
        ({}, "v_prediction", 4, True, False),
        ({"architecture": "stable-diffusion-v2-512"}, "", 4, False, False),
        ({"architecture": "stable-diffusion-v2-768-v"}, "", 4, True, False),
        ({}, "", 9, False, False),
    ],
)
def test_stable_diffusion_2(
    metadata: dict[str, str], said: str, channels: int, velocity: bool, unsure: bool
) -> None:
    found = small_files("stable-diffusion-2", channels=channels, said=said, **metadata)
    scheduler = "DDIMScheduler" if velocity else "PNDMScheduler"
    assert found.scheduler == {
        **STEPS_OF_1,
        "_class_name": scheduler,
        "prediction_type": "v_prediction" if velocity else "epsilon",
    }
    pipeline = "StableDiffusionInpaintPipeline" if channels == 9 else "StableDiffusionPipeline"
    assert dict(found.index) == index_of(
        pipeline, **TEXT, **UNET, **WITHOUT, scheduler=[DIFFUSERS, scheduler]
    )
    side = 96 if velocity else 64
    holds(
        found.components["unet"],
        in_channels=channels,
        sample_size=side,
        attention_head_dim=[5, 10, 20, 20],
        cross_attention_dim=1024,
        use_linear_projection=True,
    )
    holds(found.components["vae"], **KL, sample_size=8 * side, scaling_factor=0.18215)
    holds(
        found.components["text_encoder"],
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=23,
        num_attention_heads=16,
        hidden_act="gelu",
        architectures=[CLIP],
    )
    assert bool(found.notice) is unsure
    assert "v_prediction is assumed" in found.notice or not unsure
    assert b'"pad_token": "!"' in found.others["tokenizer/tokenizer_config.json"]


EULER = {
    **TRAINED,
    "_class_name": "EulerDiscreteScheduler",
    "interpolation_type": "linear",
    "sample_max_value": 1.0,
    "timestep_spacing": "leading",
    "use_karras_sigmas": False,
}
XL = {
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "mid_block_type": "UNetMidBlock2DCrossAttn",
}


@pytest.mark.parametrize("channels", [4, 9])
def test_stable_diffusion_xl(channels: int) -> None:
    found = small_files("stable-diffusion-xl", channels=channels)
    pipeline = "StableDiffusionXLInpaintPipeline" if channels == 9 else "StableDiffusionXLPipeline"
    assert dict(found.index) == index_of(
        pipeline,
        **TEXT,
        **TEXT_2,
        **UNET,
        scheduler=[DIFFUSERS, "EulerDiscreteScheduler"],
        force_zeros_for_empty_prompt=True,
    )
    assert found.scheduler == {**EULER, "prediction_type": "epsilon"}
    holds(found.components["text_encoder"], **L)
    holds(found.components["text_encoder_2"], **G)
    holds(found.components["vae"], **KL, sample_size=1024, scaling_factor=0.13025)
    holds(
        found.components["unet"],
        **XL,
        in_channels=channels,
        sample_size=128,
        attention_head_dim=[5, 10, 20],
        block_out_channels=[320, 640, 1280],
        down_block_types=["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
        up_block_types=["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
        transformer_layers_per_block=[1, 2, 10],
    )
    paddings = [found.others[f"{name}/tokenizer_config.json"] for name in ("tokenizer", "tokenizer_2")]
    assert [b'"pad_token": "!"' in each for each in paddings] == [False, True]
    assert len(found.others) == 8


def test_an_xl_that_predicts_velocity_says_so() -> None:
    assert small_files("stable-diffusion-xl", said="v_prediction").scheduler == {
        **EULER,
        "prediction_type": "v_prediction",
    }
    marked = small_files("stable-diffusion-xl", tensors=("v_pred", "ztsnr")).scheduler
    assert marked == {**EULER, "prediction_type": "v_prediction", "rescale_betas_zero_snr": True}


def test_the_refiner_of_xl() -> None:
    found = small_files("stable-diffusion-xl-refiner")
    assert dict(found.index) == index_of(
        "StableDiffusionXLImg2ImgPipeline",
        **TEXT_2,
        **UNET,
        text_encoder=NONE,
        tokenizer=NONE,
        scheduler=[DIFFUSERS, "EulerDiscreteScheduler"],
        force_zeros_for_empty_prompt=False,
        requires_aesthetics_score=True,
    )
    assert found.scheduler == {**EULER, "prediction_type": "epsilon"}
    assert set(found.components) == {"text_encoder_2", "unet", "vae"}
    holds(found.components["text_encoder_2"], **G)
    holds(
        found.components["unet"],
        **XL,
        attention_head_dim=[6, 12, 24, 24],
        block_out_channels=[384, 768, 1536, 1536],
        cross_attention_dim=1280,
        projection_class_embeddings_input_dim=2560,
        transformer_layers_per_block=4,
        sample_size=128,
        use_linear_projection=True,
    )
    assert {name.partition("/")[0] for name in found.others} == {"tokenizer_2"}


def test_stable_diffusion_3() -> None:
    found = small_files("stable-diffusion-3")
    assert dict(found.index) == index_of(
        "StableDiffusion3Pipeline",
        text_encoder=[TRANSFORMERS, PROJECTED],
        tokenizer=[TRANSFORMERS, "CLIPTokenizer"],
        **TEXT_2,
        text_encoder_3=NONE,
        tokenizer_3=NONE,
        transformer=[DIFFUSERS, "SD3Transformer2DModel"],
        vae=[DIFFUSERS, "AutoencoderKL"],
        scheduler=[DIFFUSERS, "FlowMatchEulerDiscreteScheduler"],
    )
    assert found.scheduler == {
        "_class_name": "FlowMatchEulerDiscreteScheduler",
        "num_train_timesteps": 1000,
        "shift": 3.0,
    }
    assert set(found.components) == {"text_encoder", "text_encoder_2", "transformer", "vae"}
    holds(
        found.components["transformer"],
        _class_name="SD3Transformer2DModel",
        joint_attention_dim=4096,
        patch_size=2,
        sample_size=128,
    )
    holds(found.components["text_encoder"], **{**L, "architectures": [PROJECTED], "projection_dim": 768})
    holds(found.components["text_encoder_2"], **G)
    holds(
        found.components["vae"],
        **KL,
        latent_channels=16,
        scaling_factor=1.5305,
        shift_factor=0.0609,
        use_quant_conv=False,
        use_post_quant_conv=False,
        sample_size=1024,
    )


@pytest.mark.parametrize("name", ["flux", "flux2-klein", "sana", "sana-sprint", "z-image"])
def test_the_others_take_them_from_a_base(name: str) -> None:
    layout = family_named(name).single_file
    assert layout is not None
    assert layout.small_files is None

"""A single file that no family takes is named for what it is."""

from __future__ import annotations

import pytest

from conversions.checkpoint.safetensors_header import StoredTensor
from conversions.checkpoint.unknown_file import refusal

NEAREST = ("Stable Diffusion XL", tuple(f"reason {number}" for number in range(8)))


def stored(*names: str, shape: tuple[int, ...] = (2, 2)) -> dict[str, StoredTensor]:
    return {
        name: StoredTensor(name=name, file="f", dtype="F16", shape=shape, offset=0, size_bytes=8)
        for name in names
    }


@pytest.mark.parametrize(
    ("names", "code", "said"),
    [
        *(
            ([name], "checkpoint.is_lora", "holds a LoRA")
            for name in (
                "lora_unet_down_blocks_0.alpha",
                "lora_te_text.alpha",
                "unet.q.lora_A.weight",
                "unet.q.lora_B.weight",
                "unet.q.lora_up.weight",
                "unet.q.lora_down.weight",
                "unet.q.lora.up.weight",
                "unet.q.hada_w1_a",
            )
        ),
        *(
            ([name], "checkpoint.is_embedding", "holds a textual inversion")
            for name in ("emb_params", "clip_l", "clip_g", "string_to_param")
        ),
        (["model.diffusion_model.distilled_guidance_layer.in_proj.bias"], "family.unsupported", "is Chroma,"),
        (["cap_embedder.0.weight"], "family.unsupported", "is Lumina 2,"),
        (["txt_in.text_norm.weight"], "family.unsupported", "is Qwen-Image,"),
        (
            ["blocks.0.cross_attn.q_linear.weight", "blocks.0.attn.qkv.bias"],
            "family.unsupported",
            "is a single file of PixArt",
        ),
        (["blocks.0.attn.qkv.bias"], "family.unsupported", "is no checkpoint that is known"),
        (["double_layers.0.attn.w2q.weight"], "family.unsupported", "is AuraFlow,"),
        (["head.modulation"], "family.unsupported", "is Wan,"),
        (["edm_mean"], "family.unsupported", "is Playground 2.5,"),
        (["clip_txt_mapper.weight"], "family.unsupported", "is Stable Cascade,"),
        (["control_model.x"], "family.unsupported", "is a ControlNet"),
        (["controlnet_cond_embedding.x"], "family.unsupported", "is a ControlNet"),
        (["input_hint_block.0.weight"], "family.unsupported", "is a ControlNet"),
        (["down_blocks.0.motion_modules.0.x"], "family.unsupported", "is a motion module of AnimateDiff"),
        (["decoder.conv_in.weight"], "checkpoint.is_autoencoder", "holds an autoencoder"),
        (["first_stage_model.decoder.conv_in.bias"], "checkpoint.is_autoencoder", "holds an autoencoder"),
        ([], "family.unsupported", "of its 0 tensors the first are none"),
        (list("abcdefgh"), "family.unsupported", "of its 8 tensors the first are a, b, c, d, e, f."),
        (["clip_l", *"abcdefg"], "family.unsupported", "of its 8 tensors"),
    ],
)
def test_a_file_is_named_by_its_tensors(names: list[str], code: str, said: str) -> None:
    error = refusal("some.safetensors", stored(*names), None)
    assert error.code == code
    assert error.message.startswith("some.safetensors ")
    assert said in error.message
    assert error.hint


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
def test_a_denoiser_with_eight_channels_edits_by_instruction(prefix: str) -> None:
    name = f"{prefix}input_blocks.0.0.weight"
    error = refusal("f", stored(name, shape=(320, 8, 3, 3)), NEAREST)
    assert "InstructPix2Pix" in error.message
    assert NEAREST[0] in (error.hint or "")
    for shape in ((320, 9, 3, 3), (320, 8, 3)):
        assert "InstructPix2Pix" not in refusal("f", stored(name, shape=shape), NEAREST).message


def test_another_denoiser_is_told_how_it_differs() -> None:
    for names in (["x"], ["decoder.conv_in.weight"]):
        error = refusal("f", stored(*names), NEAREST)
        assert error.code == "family.unsupported"
        assert error.message.startswith("f has a U-Net of no known family")
        assert "Stable Diffusion XL is the nearest: reason 0; " in error.message
        assert error.message.endswith("reason 5.")

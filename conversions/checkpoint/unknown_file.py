"""Say what a single file is that no family takes: by name where its tensors tell."""

from __future__ import annotations

from collections.abc import Mapping

from conversions.checkpoint.safetensors_header import StoredTensor
from conversions.errors import ConversionError
from conversions.family import all_families

_PREFIXES = ("", "model.diffusion_model.")
# What tells a kind, by a tensor's name; order matters. Source: CHECKPOINT_KEY_NAMES in diffusers 0.42's
# single_file_utils.py; for PixArt its release, whose blocks are Sana's but for one product of q, k and v.
_MODELS = (
    ("Chroma", "distilled_guidance_layer.in_proj.bias"),
    ("Lumina 2", "cap_embedder.0.weight"),
    ("Qwen-Image", "txt_in.text_norm.weight"),
    ("AuraFlow", "double_layers.0.attn.w2q.weight"),
    ("Wan", "head.modulation"),
    ("Playground 2.5", "edm_mean"),
    ("Stable Cascade", "clip_txt_mapper.weight"),
)
_PIXART = ("blocks.0.attn.qkv.bias", "blocks.0.cross_attn.q_linear.weight")
_PARTS = (
    (
        ("control_model.", "controlnet_", "input_hint_block."),
        "a ControlNet, which guides a model and is none",
        "ControlNets cannot be converted yet.",
    ),
    (
        ("down_blocks.0.motion_modules.",),
        "a motion module of AnimateDiff",
        "Convert a checkpoint that makes images.",
    ),
)
_SHOWN = 6


def refusal(
    label: str, stored: Mapping[str, StoredTensor], nearest: tuple[str, tuple[str, ...]] | None
) -> ConversionError:
    """Return the error for a file that no family takes.

    Args:
        label: The file.
        stored: Its tensors.
        nearest: The family that came nearest, and how its denoiser differs; None where there is no U-Net.
    """
    names = tuple(stored)
    if any(_is_adapter(name) for name in names):
        return ConversionError(
            "checkpoint.is_lora",
            f"{label} holds a LoRA: changes to a model, no model.",
            "Convert the model that it belongs to, and give this file as its LoRA.",
        )
    if (
        any(name in ("emb_params", "clip_l", "clip_g", "string_to_param") for name in names)
        and len(names) < 8
    ):
        return ConversionError(
            "checkpoint.is_embedding",
            f"{label} holds a textual inversion: one word of a prompt, no model.",
            "Convert the model that it belongs to.",
        )
    if any(all(prefix + name in stored for name in _PIXART) for prefix in _PREFIXES):
        return ConversionError(
            "family.unsupported",
            f"{label} is a single file of PixArt, which cannot be read yet.",
            "Convert PixArt's folder in the diffusers layout.",
        )
    for title, marker in _MODELS:
        if any(prefix + marker in stored for prefix in _PREFIXES):
            return ConversionError(
                "family.unsupported",
                f"{label} is {title}, which cannot be converted yet.",
                _supported(),
            )
    for starts, what, hint in _PARTS:
        if any(name.startswith(starts) for name in names):
            return ConversionError("family.unsupported", f"{label} is {what}.", hint)
    if nearest is not None:
        return _other_denoiser(label, stored, *nearest)
    if any(name.removeprefix("first_stage_model.").startswith("decoder.conv_in.") for name in names):
        return ConversionError(
            "checkpoint.is_autoencoder",
            f"{label} holds an autoencoder (VAE) alone, no model.",
            "Convert the model that it belongs to, and give this file as its VAE.",
        )
    listed = ", ".join(names[:_SHOWN])
    return ConversionError(
        "family.unsupported",
        f"{label} is no checkpoint that is known; of its {len(names):,} tensors the first are "
        f"{listed or 'none'}.",
        _supported(),
    )


def _other_denoiser(
    label: str, stored: Mapping[str, StoredTensor], title: str, different: tuple[str, ...]
) -> ConversionError:
    first = next(
        (
            each.shape
            for prefix in _PREFIXES
            if (each := stored.get(f"{prefix}input_blocks.0.0.weight")) is not None
        ),
        (),
    )
    if len(first) == 4 and first[1] == 8:
        return ConversionError(
            "family.unsupported",
            f"{label} is an InstructPix2Pix model (8 input channels), which cannot be converted yet.",
            f"The nearest family is {title}.",
        )
    return ConversionError(
        "family.unsupported",
        f"{label} has a U-Net of no known family; {title} is the nearest: {'; '.join(different[:_SHOWN])}.",
        "A distilled or pruned U-Net can be converted from a folder in the diffusers layout, whose "
        "config.json describes it.",
    )


def _supported() -> str:
    titles = [family.title for family in all_families() if family.single_file is not None]
    return f"Supported are single files of {', '.join(titles)}."


def _is_adapter(name: str) -> bool:
    return name.startswith(("lora_unet_", "lora_te")) or any(
        part in name
        for part in (".lora_A.", ".lora_B.", ".lora_up.", ".lora_down.", ".lora.up.", ".hada_w1_a")
    )

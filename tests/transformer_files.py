"""Single files of transformers in the naming of their release, from diffusers folders by maps of its own."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.single_files import vae_name

Tensors = dict[str, Any]


def _joined(tensors: Tensors, parts: list[str], whole: str) -> Tensors:
    """Join layers that the release has as one; other tensors stay."""
    import torch

    found = dict(tensors)
    for name in tensors:
        home, _, rest = name.rpartition(f".{parts[0]}.")
        if not _ or not home:
            continue
        names = [f"{home}.{part}.{rest}" for part in parts]
        found[f"{home}.{whole}.{rest}"] = torch.cat([found.pop(each) for each in names])
    return found


def _halves_exchanged(value: Any) -> Any:
    import torch

    first, second = value.chunk(2)
    return torch.cat([second, first])


def _replaced(name: str, pairs: list[tuple[str, str]]) -> str:
    for new, old in pairs:
        name = re.sub(new, old, name)
    return name


def flux(tensors: Tensors) -> Tensors:
    """Write FLUX.1's transformer as black-forest-labs/flux does."""
    tensors = _joined(tensors, ["attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"], "txt_attn.qkv")
    single = {name: each for name, each in tensors.items() if name.startswith("single_")}
    single = _joined(single, ["attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"], "linear1")
    double = {name: each for name, each in tensors.items() if not name.startswith("single_")}
    double = _joined(double, ["attn.to_q", "attn.to_k", "attn.to_v"], "img_attn.qkv")
    pairs = [
        (r"^x_embedder\.", "img_in."),
        (r"^context_embedder\.", "txt_in."),
        (r"^proj_out\.", "final_layer.linear."),
        (r"^norm_out\.linear\.", "final_layer.adaLN_modulation.1."),
        (r"^time_text_embed\.timestep_embedder\.", "time_in."),
        (r"^time_text_embed\.text_embedder\.", "vector_in."),
        (r"^time_text_embed\.guidance_embedder\.", "guidance_in."),
        (r"^(\w+_in\.)linear_1\.", r"\1in_layer."),
        (r"^(\w+_in\.)linear_2\.", r"\1out_layer."),
        (r"norm1_context\.linear", "txt_mod.lin"),
        (r"norm1\.linear", "img_mod.lin"),
        (r"ff_context\.net\.0\.proj", "txt_mlp.0"),
        (r"ff_context\.net\.2", "txt_mlp.2"),
        (r"ff\.net\.0\.proj", "img_mlp.0"),
        (r"ff\.net\.2", "img_mlp.2"),
        (r"^(single_.*)attn\.norm_([qk])\.weight", r"\1norm.\2.scale"),
        (r"attn\.norm_added_([qk])\.weight", r"txt_attn.norm.\1.scale"),
        (r"attn\.norm_([qk])\.weight", r"img_attn.norm.\1.scale"),
        (r"norm\.q\.", "norm.query_norm."),
        (r"norm\.k\.", "norm.key_norm."),
        (r"attn\.to_add_out\.", "txt_attn.proj."),
        (r"attn\.to_out\.0\.", "img_attn.proj."),
        (r"^(single_.*)norm\.linear", r"\1modulation.lin"),
        (r"^(single_.*)proj_out\.", r"\1linear2."),
        (r"^single_transformer_blocks", "single_blocks"),
        (r"^transformer_blocks", "double_blocks"),
    ]
    return {
        _replaced(name, pairs): _halves_exchanged(each) if name.startswith("norm_out.") else each
        for name, each in {**double, **single}.items()
    }


def sd3(tensors: Tensors) -> Tensors:
    """Write Stable Diffusion 3's transformer as Stability AI does."""
    last = max(int(name.split(".")[1]) for name in tensors if name.startswith("transformer_blocks."))
    exchanged = ("norm_out.", f"transformer_blocks.{last}.norm1_context.")
    tensors = {
        name: _halves_exchanged(each) if name.startswith(exchanged) else each
        for name, each in tensors.items()
    }
    for parts, whole in (
        (["attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"], "context_block.attn.qkv"),
        (["attn.to_q", "attn.to_k", "attn.to_v"], "x_block.attn.qkv"),
        (["attn2.to_q", "attn2.to_k", "attn2.to_v"], "x_block.attn2.qkv"),
    ):
        tensors = _joined(tensors, parts, whole)
    pairs = [
        (r"^pos_embed\.pos_embed$", "pos_embed"),
        (r"^pos_embed\.proj\.", "x_embedder.proj."),
        (r"^time_text_embed\.timestep_embedder\.", "t_embedder."),
        (r"^time_text_embed\.text_embedder\.", "y_embedder."),
        (r"_embedder\.linear_1\.", "_embedder.mlp.0."),
        (r"_embedder\.linear_2\.", "_embedder.mlp.2."),
        (r"^norm_out\.linear\.", "final_layer.adaLN_modulation.1."),
        (r"^proj_out\.", "final_layer.linear."),
        (r"norm1_context\.linear", "context_block.adaLN_modulation.1"),
        (r"norm1\.linear", "x_block.adaLN_modulation.1"),
        (r"ff_context\.net\.0\.proj", "context_block.mlp.fc1"),
        (r"ff_context\.net\.2", "context_block.mlp.fc2"),
        (r"ff\.net\.0\.proj", "x_block.mlp.fc1"),
        (r"ff\.net\.2", "x_block.mlp.fc2"),
        (r"attn\.norm_added_([qk])", r"context_block.attn.ln_\1"),
        (r"\.attn(2?)\.norm_([qk])", r".x_block.attn\1.ln_\2"),
        (r"attn\.to_add_out", "context_block.attn.proj"),
        (r"\.attn(2?)\.to_out\.0", r".x_block.attn\1.proj"),
        (r"^transformer_blocks", "joint_blocks"),
    ]
    return {_replaced(name, pairs): each for name, each in tensors.items()}


def z_image(tensors: Tensors) -> Tensors:
    """Write Z-Image's transformer as ComfyUI does."""
    import torch

    tensors = _joined(tensors, ["attention.to_q", "attention.to_k", "attention.to_v"], "attention.qkv")
    pairs = [
        (r"^all_final_layer\.2-1\.", "final_layer."),
        (r"^all_x_embedder\.2-1\.", "x_embedder."),
        (r"attention\.to_out\.0", "attention.out"),
        (r"attention\.norm_([qk])", r"attention.\1_norm"),
    ]
    found = {_replaced(name, pairs): each for name, each in tensors.items()}
    return {**found, "norm_final.weight": torch.ones(len(found["x_embedder.bias"]))}


def flux2(tensors: Tensors) -> Tensors:
    """Write FLUX.2's transformer as black-forest-labs/flux2 does."""
    tensors = _joined(tensors, ["attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"], "txt_attn.qkv")
    tensors = _joined(tensors, ["attn.to_q", "attn.to_k", "attn.to_v"], "img_attn.qkv")
    pairs = [
        (r"^x_embedder\.", "img_in."),
        (r"^context_embedder\.", "txt_in."),
        (r"^proj_out\.", "final_layer.linear."),
        (r"^norm_out\.linear\.", "final_layer.adaLN_modulation.1."),
        (r"^time_guidance_embed\.timestep_embedder\.", "time_in."),
        (r"^time_guidance_embed\.guidance_embedder\.", "guidance_in."),
        (r"^(\w+_in\.)linear_1\.", r"\1in_layer."),
        (r"^(\w+_in\.)linear_2\.", r"\1out_layer."),
        (r"(_modulation(?:_img|_txt)?)\.linear\.", r"\1.lin."),
        (r"ff_context\.linear_in", "txt_mlp.0"),
        (r"ff_context\.linear_out", "txt_mlp.2"),
        (r"ff\.linear_in", "img_mlp.0"),
        (r"ff\.linear_out", "img_mlp.2"),
        (r"^(single_.*)attn\.norm_([qk])\.weight", r"\1norm.\2.scale"),
        (r"attn\.norm_added_([qk])\.weight", r"txt_attn.norm.\1.scale"),
        (r"attn\.norm_([qk])\.weight", r"img_attn.norm.\1.scale"),
        (r"norm\.q\.", "norm.query_norm."),
        (r"norm\.k\.", "norm.key_norm."),
        (r"attn\.to_add_out\.", "txt_attn.proj."),
        (r"attn\.to_out\.0\.", "img_attn.proj."),
        (r"attn\.to_qkv_mlp_proj\.", "linear1."),
        (r"^(single_.*)attn\.to_out\.", r"\1linear2."),
        (r"^single_transformer_blocks", "single_blocks"),
        (r"^transformer_blocks", "double_blocks"),
    ]
    return {
        _replaced(name, pairs): _halves_exchanged(each) if name.startswith("norm_out.") else each
        for name, each in tensors.items()
    }


def sana(tensors: Tensors) -> Tensors:
    """Write Sana's or Sana-Sprint's transformer as NVIDIA does, with what it needs in training alone."""
    import torch

    tensors = _joined(tensors, ["attn1.to_q", "attn1.to_k", "attn1.to_v"], "attn.qkv")
    tensors = _joined(tensors, ["attn2.to_k", "attn2.to_v"], "cross_attn.kv_linear")
    pairs = [
        (r"^patch_embed\.", "x_embedder."),
        (r"^caption_projection\.linear_", "y_embedder.y_proj.fc"),
        (r"^caption_norm\.", "attention_y_norm."),
        (r"^time_embed\.(emb\.)?timestep_embedder\.", "t_embedder."),
        (r"^time_embed\.guidance_embedder\.", "cfg_embedder."),
        (r"_embedder\.linear_1\.", "_embedder.mlp.0."),
        (r"_embedder\.linear_2\.", "_embedder.mlp.2."),
        (r"^time_embed\.linear\.", "t_block.1."),
        (r"^proj_out\.", "final_layer.linear."),
        (r"^scale_shift_table$", "final_layer.scale_shift_table"),
        (r"attn1\.norm_([qk])", r"attn.\1_norm"),
        (r"attn2\.norm_([qk])", r"cross_attn.\1_norm"),
        (r"attn1\.to_out\.0", "attn.proj"),
        (r"attn2\.to_out\.0", "cross_attn.proj"),
        (r"attn2\.to_q", "cross_attn.q_linear"),
        (r"ff\.conv_(inverted|depth|point)", r"mlp.\1_conv.conv"),
        (r"^transformer_blocks", "blocks"),
    ]
    found = {_replaced(name, pairs): each for name, each in tensors.items()}
    width = len(found["x_embedder.proj.bias"])
    return {
        **found,
        "pos_embed": torch.zeros(1, 256, width),
        "y_embedder.y_embedding": torch.zeros(300, found["y_embedder.y_proj.fc1.weight"].shape[1]),
    }


ORIGINAL: dict[str, Callable[[Tensors], Tensors]] = {
    "flux": flux,
    "stable-diffusion-3": sd3,
    "z-image": z_image,
    "flux2-klein": flux2,
    "sana": sana,
    "sana-sprint": sana,
}
"""Each family's transformer in the naming of its release."""

ALONE = ("sana", "sana-sprint")
"""Families whose files hold the transformer alone."""

ENCODERS = {
    "flux": {"text_encoder": "clip_l", "text_encoder_2": "t5xxl"},
    "stable-diffusion-3": {"text_encoder": "clip_l", "text_encoder_2": "clip_g", "text_encoder_3": "t5xxl"},
}
"""Text encoders in files that hold everything, by their component."""


def component(folder: Path, name: str) -> Tensors:
    """Return the tensors of a folder's component."""
    from safetensors.torch import load_file

    return load_file(next((folder / name).glob("*.safetensors")))


def denoiser(folder: Path, family: str) -> Tensors:
    """Return the transformer's tensors in the naming of its release, without prefix."""
    return ORIGINAL[family](component(folder, "transformer"))


def whole(folder: Path, family: str) -> Tensors:
    """Return everything that files with encoders and autoencoder hold, as ComfyUI writes them."""
    found = {f"model.diffusion_model.{name}": each for name, each in denoiser(folder, family).items()}
    if family in ALONE:
        return found
    config = json.loads((folder / "vae" / "config.json").read_text("utf-8"))
    for name, each in component(folder, "vae").items():
        old = vae_name(name, len(config["block_out_channels"])).removeprefix("first_stage_model.")
        old = re.sub(r"^quant_conv", "encoder.quant_conv", re.sub(r"^post_quant", "decoder.post_quant", old))
        found[f"vae.{old}"] = each[..., None, None] if ".mid.attn_1." in old and each.ndim == 2 else each
    for name, short in ENCODERS.get(family, {}).items():
        if (folder / name).is_dir():
            clip = "" if short == "t5xxl" else "text_model."
            for own, each in component(folder, name).items():
                old = own if own.startswith("text_projection.") else clip + own.removeprefix("text_model.")
                found[f"text_encoders.{short}.transformer.{old}"] = each
    return found


def write(tensors: Tensors, target: Path) -> Path:
    """Write tensors to a safetensors file."""
    from safetensors.torch import save_file

    save_file({name: each.contiguous().clone() for name, each in tensors.items()}, target)
    return target

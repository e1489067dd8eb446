"""Single files in the original naming, written from diffusers folders by a map of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def unet_names(config: dict[str, Any]) -> dict[str, str]:
    """Return the original module of each of diffusers' modules."""
    found = {
        "conv_in": "input_blocks.0.0",
        "time_embedding.linear_1": "time_embed.0",
        "time_embedding.linear_2": "time_embed.2",
        "time_embedding.cond_proj": "time_embed.cond_proj",
        "add_embedding.linear_1": "label_emb.0.0",
        "add_embedding.linear_2": "label_emb.0.2",
        "mid_block.resnets.0": "middle_block.0",
        "mid_block.attentions.0": "middle_block.1",
        "mid_block.resnets.1": "middle_block.2",
        "conv_norm_out": "out.0",
        "conv_out": "out.2",
    }
    place = 0
    levels = len(config["block_out_channels"])
    for level in range(levels):
        for layer in range(config["layers_per_block"]):
            place += 1
            found[f"down_blocks.{level}.resnets.{layer}"] = f"input_blocks.{place}.0"
            found[f"down_blocks.{level}.attentions.{layer}"] = f"input_blocks.{place}.1"
        if level < levels - 1:
            place += 1
            found[f"down_blocks.{level}.downsamplers.0.conv"] = f"input_blocks.{place}.0.op"
    place = 0
    for level, kind in enumerate(config["up_block_types"]):
        for layer in range(config["layers_per_block"] + 1):
            found[f"up_blocks.{level}.resnets.{layer}"] = f"output_blocks.{place}.0"
            found[f"up_blocks.{level}.attentions.{layer}"] = f"output_blocks.{place}.1"
            place += 1
        if level < levels - 1:
            after = 2 if "CrossAttn" in kind else 1
            found[f"up_blocks.{level}.upsamplers.0.conv"] = f"output_blocks.{place - 1}.{after}.conv"
    return found


RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}


def unet_name(name: str, modules: dict[str, str]) -> str:
    module = max((each for each in modules if name.startswith(f"{each}.")), key=len)
    rest = name[len(module) + 1 :]
    if ".resnets." in name:
        part, _, kind = rest.partition(".")
        rest = f"{RESNET[part]}.{kind}"
    return f"model.diffusion_model.{modules[module]}.{rest}"


def vae_name(name: str, levels: int) -> str:
    parts = name.split(".")
    if "up_blocks" in parts:
        parts[2] = str(levels - 1 - int(parts[2]))
    text = ".".join(parts)
    for new, old in (
        ("down_blocks.", "down."), ("up_blocks.", "up."), ("downsamplers.0.", "downsample."),
        ("upsamplers.0.", "upsample."), ("mid_block.resnets.0.", "mid.block_1."),
        ("mid_block.resnets.1.", "mid.block_2."), ("mid_block.attentions.0.", "mid.attn_1."),
        (".resnets.", ".block."), ("conv_shortcut", "nin_shortcut"), ("conv_norm_out", "norm_out"),
        ("group_norm", "norm"), ("to_q.", "q."), ("to_k.", "k."), ("to_v.", "v."), ("to_out.0.", "proj_out."),
    ):  # fmt: skip
        text = text.replace(new, old)
    return f"first_stage_model.{text}"


def openclip(tensors: dict[str, Any], prefix: str, *, last: bool) -> dict[str, Any]:
    """Write a text encoder as OpenCLIP does; ``last`` adds the layer that Stable Diffusion 2.x leaves out."""
    import torch

    found: dict[str, Any] = {}
    layers: dict[int, dict[str, Any]] = {}
    for name, value in tensors.items():
        short = name.removeprefix("text_model.")
        if short == "text_projection.weight":
            found["text_projection"] = value.T.contiguous()
        elif short.startswith("encoder.layers."):
            number, _, rest = short.removeprefix("encoder.layers.").partition(".")
            layers.setdefault(int(number), {})[rest] = value
        else:
            new = {
                "embeddings.token_embedding.weight": "token_embedding.weight",
                "embeddings.position_embedding.weight": "positional_embedding",
                "final_layer_norm.weight": "ln_final.weight",
                "final_layer_norm.bias": "ln_final.bias",
            }
            found[new[short]] = value
    if last:
        layers[len(layers)] = {name: torch.ones_like(value) for name, value in layers[0].items()}
        found["text_projection"] = torch.zeros(2, 2)
    for number, layer in layers.items():
        home = f"transformer.resblocks.{number}."
        for kind in ("weight", "bias"):
            found[f"{home}attn.in_proj_{kind}"] = torch.cat(
                [layer[f"self_attn.{letter}_proj.{kind}"] for letter in "qkv"]
            )
            found[f"{home}attn.out_proj.{kind}"] = layer[f"self_attn.out_proj.{kind}"]
            for new, old in (
                ("layer_norm1", "ln_1"), ("layer_norm2", "ln_2"), ("mlp.fc1", "mlp.c_fc"),
                ("mlp.fc2", "mlp.c_proj"),
            ):  # fmt: skip
                found[f"{home}{old}.{kind}"] = layer[f"{new}.{kind}"]
    found["logit_scale"] = torch.tensor(1.0)
    return {prefix + name: value for name, value in found.items()}


def clip(tensors: dict[str, Any], prefix: str) -> dict[str, Any]:
    import torch

    found = {
        f"{prefix}text_model.{name.removeprefix('text_model.')}": value for name, value in tensors.items()
    }
    return {**found, f"{prefix}text_model.embeddings.position_ids": torch.arange(77)[None]}


def write_single_file(folder: Path, target: Path, *, metadata: dict[str, str] | None = None) -> Path:
    """Write a diffusers folder as one file in the original naming, with some averages of training."""
    from safetensors.torch import load_file, save_file

    def load(component: str) -> dict[str, Any]:
        return load_file(next((folder / component).glob("*.safetensors")))

    def config(component: str) -> dict[str, Any]:
        return json.loads((folder / component / "config.json").read_text("utf-8"))

    found: dict[str, Any] = {}
    modules = unet_names(config("unet"))
    found |= {unet_name(name, modules): value for name, value in load("unet").items()}
    found["model_ema.decay"] = next(iter(found.values())).clone()
    levels = len(config("vae")["block_out_channels"])
    for name, value in load("vae").items():
        old = vae_name(name, levels)
        found[old] = value[..., None, None] if ".mid.attn_1." in old and value.ndim == 2 else value
    first, second = (folder / name for name in ("text_encoder", "text_encoder_2"))
    if second.is_dir():
        if first.is_dir():
            found |= clip(load("text_encoder"), "conditioner.embedders.0.transformer.")
        place = 1 if first.is_dir() else 0
        found |= openclip(load("text_encoder_2"), f"conditioner.embedders.{place}.model.", last=False)
    elif config("text_encoder")["hidden_act"] == "gelu":
        found |= openclip(load("text_encoder"), "cond_stage_model.model.", last=True)
    else:
        found |= clip(load("text_encoder"), "cond_stage_model.transformer.")
    save_file({name: value.contiguous() for name, value in found.items()}, target, metadata=metadata)
    return target

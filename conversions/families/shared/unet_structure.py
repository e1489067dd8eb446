"""The structure of an original U-Net, read off its tensors' shapes, and compared with a configuration."""

from __future__ import annotations

import re
from typing import Any

from conversions.graph_kind import Config
from conversions.submodels.unet import DEFAULTS
from conversions.weights.expression import Tensors

_BLOCK = re.compile(r"input_blocks\.(\d{1,3})\.")
_DEPTH = re.compile(r"transformer_blocks\.(\d{1,3})\.")


def structure_of_file(tensors: Tensors) -> dict[str, Any]:
    """Read the fields of a configuration that show in the tensors.

    Args:
        tensors: The U-Net's tensors by their original names, without prefix.
    """
    shapes = {name: each.shape for name, each in tensors.items()}
    first = shapes.get("input_blocks.0.0.weight", ())
    numbers = sorted({int(found[1]) for name in shapes if (found := _BLOCK.match(name))} - {0})
    levels: list[list[tuple[int, int]]] = [[]]
    for number in numbers:
        home = f"input_blocks.{number}."
        if f"{home}0.op.weight" in shapes:
            levels.append([])
            continue
        channels = shapes.get(f"{home}0.out_layers.3.weight", (0,))
        blocks = {
            int(found[1])
            for name in shapes
            if name.startswith(f"{home}1.") and (found := _DEPTH.search(name))
        }
        levels[-1].append((channels[0] if channels else 0, len(blocks)))
    projection = next((shape for name, shape in shapes.items() if name.endswith(".1.proj_in.weight")), ())
    states = next((shape for name, shape in shapes.items() if name.endswith(".attn2.to_k.weight")), ())
    label = shapes.get("label_emb.0.0.weight", ())
    condition = shapes.get("time_embed.cond_proj.weight", ())
    return {
        "in_channels": first[1] if len(first) == 4 else 0,
        "block_out_channels": [level[0][0] if level else 0 for level in levels],
        "layers_per_block": max(len(level) for level in levels),
        "transformer_layers": [max((depth for _, depth in level), default=0) for level in levels],
        "middle": any(name.startswith("middle_block.1.transformer_blocks.") for name in shapes),
        "cross_attention_dim": states[1] if len(states) == 2 else 0,
        "use_linear_projection": len(projection) == 2,
        "projection_class_embeddings_input_dim": label[1] if len(label) == 2 else None,
        "time_cond_proj_dim": condition[1] if len(condition) == 2 else None,
    }


def structure_of_config(config: Config) -> dict[str, Any]:
    """Return the same fields of a configuration."""
    whole = {**DEFAULTS, **config}
    depth = whole["transformer_layers_per_block"]
    kinds = whole["down_block_types"]
    depths = depth if isinstance(depth, list | tuple) else [depth] * len(kinds)
    return {
        "in_channels": whole["in_channels"],
        "block_out_channels": list(whole["block_out_channels"]),
        "layers_per_block": whole["layers_per_block"],
        "transformer_layers": [
            each if kind.startswith("CrossAttn") else 0 for each, kind in zip(depths, kinds, strict=False)
        ],
        "middle": whole["mid_block_type"] == "UNetMidBlock2DCrossAttn",
        "cross_attention_dim": whole["cross_attention_dim"],
        "use_linear_projection": bool(whole["use_linear_projection"]),
        "projection_class_embeddings_input_dim": whole["projection_class_embeddings_input_dim"],
        "time_cond_proj_dim": whole["time_cond_proj_dim"],
    }


def differences(tensors: Tensors, config: Config, *, free: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Say in which fields a file's U-Net differs from a configuration.

    Args:
        tensors: The U-Net's tensors by their original names, without prefix.
        config: A configuration of ``UNet2DConditionModel``.
        free: Fields that do not count.
    """
    found, wanted = structure_of_file(tensors), structure_of_config(config)
    return tuple(
        f"{name} is {found[name]} instead of {wanted[name]}"
        for name in wanted
        if name not in free and found[name] != wanted[name]
    )


def mismatch(tensors: Tensors, config: Config) -> tuple[str, ...]:
    """Say why a file's U-Net cannot have the configuration of a checkpoint that gives the rest.

    Depths are left to the weights' names, since distilled U-Nets have them by block.

    Args:
        tensors: The U-Net's tensors by their original names, without prefix.
        config: A configuration of ``UNet2DConditionModel``.
    """
    by_block = tuple(
        name for name in ("cross_attention_dim", "layers_per_block") if isinstance(config.get(name), list)
    )
    return differences(tensors, config, free=("layers_per_block", "transformer_layers", "middle", *by_block))

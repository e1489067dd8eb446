"""The structure of an original U-Net, read off its tensors' shapes, and compared with a configuration."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
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


def shown_by(tensors: Tensors, config: Config) -> dict[str, Any]:
    """Return fields of a configuration that a file's U-Net shows, in place of what ``config`` says.

    These are the inputs and their projections, and the numbers of transformer blocks where they differ, as in
    distilled U-Nets.

    Args:
        tensors: The U-Net's tensors by their original names, without prefix.
        config: A configuration of ``UNet2DConditionModel`` with the file's levels.
    """
    found = structure_of_file(tensors)
    fields = {
        "in_channels": found["in_channels"] or DEFAULTS["in_channels"],
        "time_cond_proj_dim": found["time_cond_proj_dim"],
        "projection_class_embeddings_input_dim": found["projection_class_embeddings_input_dim"],
    }
    if found["cross_attention_dim"]:  # it has cross-attention, whose projections tell these two
        fields["use_linear_projection"] = found["use_linear_projection"]
        if not isinstance(config.get("cross_attention_dim"), list | tuple):  # by level
            fields["cross_attention_dim"] = found["cross_attention_dim"]
    wanted = structure_of_config(config)
    same = ("block_out_channels", "layers_per_block")
    if any(found[name] != wanted[name] for name in same) or not isinstance(found["layers_per_block"], int):
        return fields
    depths = _Depths.of_file(
        tensors, levels=len(found["block_out_channels"]), layers=found["layers_per_block"]
    )
    if depths == _Depths.of_config(config):
        return fields
    middle: dict[str, Any] = {} if found["middle"] else {"mid_block_type": "UNetMidBlock2D"}
    if not found["middle"] and not any(name.startswith("middle_block.") for name in tensors):
        middle = {"mid_block_type": None}
    return {
        **fields,
        **middle,
        # A level without attention does not read its number; zero is none that the library takes.
        "transformer_layers_per_block": [[depth or 1 for depth in level] for level in depths.down],
        "reverse_transformer_layers_per_block": [[depth or 1 for depth in level] for level in depths.up],
    }


@dataclass(frozen=True, kw_only=True)
class _Depths:
    """Transformer blocks of each layer, level by level."""

    down: tuple[tuple[int, ...], ...]
    up: tuple[tuple[int, ...], ...]
    middle: bool

    @classmethod
    def of_file(cls, tensors: Tensors, *, levels: int, layers: int) -> _Depths:
        def depth(home: str) -> int:
            found = (_DEPTH.search(name) for name in tensors if name.startswith(f"{home}.1."))
            return len({match[1] for match in found if match})

        return cls(
            down=tuple(
                tuple(depth(f"input_blocks.{level * (layers + 1) + layer + 1}") for layer in range(layers))
                for level in range(levels)
            ),
            up=tuple(
                tuple(depth(f"output_blocks.{level * (layers + 1) + layer}") for layer in range(layers + 1))
                for level in range(levels)
            ),
            middle=any(name.startswith("middle_block.1.transformer_blocks.") for name in tensors),
        )

    @classmethod
    def of_config(cls, config: Config) -> _Depths:
        whole = {**DEFAULTS, **config}
        layers = structure_of_config(config)["layers_per_block"]
        given = whole["transformer_layers_per_block"]
        down = list(given) if isinstance(given, list | tuple) else [given] * len(whole["down_block_types"])
        back = whole["reverse_transformer_layers_per_block"] or down[::-1]
        return cls(
            down=_by_layer(down, whole["down_block_types"], layers),
            up=_by_layer(back, whole["up_block_types"], layers + 1),
            middle=whole["mid_block_type"] == "UNetMidBlock2DCrossAttn",
        )


def _by_layer(depths: Sequence[Any], kinds: Sequence[str], layers: int) -> tuple[tuple[int, ...], ...]:
    return tuple(
        (tuple(each) if isinstance(each, list | tuple) else (each,) * layers)
        if kind.startswith("CrossAttn")
        else (0,) * layers
        for each, kind in zip(depths, kinds, strict=False)
    )

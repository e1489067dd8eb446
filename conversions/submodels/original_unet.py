"""The names that a U-Net's modules had in the first publication of Stable Diffusion (LDM, SGM).

Source: CompVis/latent-diffusion and Stability-AI/generative-models, ``openaimodel.py``, ``UNetModel``:
``input_blocks`` and ``output_blocks`` count resnets and samplers through all levels.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
"""The layers of a residual block: original names by diffusers'."""

APART = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
"""Modules outside of the blocks: original names by diffusers'."""

_BLOCK_PART = re.compile(
    r"((?:down_blocks|up_blocks)\.\d+|mid_block)\.(resnets|attentions|\w+samplers)\.(\d+)\."
)


def original_names(tensors: Collection[str]) -> dict[str, str]:
    """Return the original name of each module of a U-Net.

    Args:
        tensors: Names of its weights as diffusers has them, which tell how many blocks and layers there are.

    Returns:
        Original names by diffusers' names.
    """
    modules = dict.fromkeys(name.rpartition(".")[0] for name in tensors)
    parts = {found[0]: None for name in tensors if (found := _BLOCK_PART.match(name))}
    places = dict(_places({name.rstrip(".") for name in parts}))
    names = {}
    for module in modules:
        if module in APART:
            names[module] = APART[module]
            continue
        found = _BLOCK_PART.match(f"{module}.")
        if found is None or (part := found[0].rstrip(".")) not in places:
            continue
        inner = module[len(part) + 1 :]
        if found[2] == "resnets":
            inner = RESNET.get(inner, inner)
        elif found[2] == "downsamplers":
            inner = "op"
        names[module] = f"{places[part]}.{inner}"
    return names


def _places(parts: set[str]) -> Iterator[tuple[str, str]]:
    """Yield the original place of each resnet, attention and sampler."""
    number = 1
    for block in _count(parts, "down_blocks"):
        for layer in _count(parts, f"{block}.resnets"):
            yield from _together(parts, layer, f"input_blocks.{number}")
            number += 1
        if f"{block}.downsamplers.0" in parts:
            yield f"{block}.downsamplers.0", f"input_blocks.{number}.0"
            number += 1
    place = 0
    for layer in _count(parts, "mid_block.resnets"):
        for part in (layer, layer.replace("resnets", "attentions")):
            if part in parts:
                yield part, f"middle_block.{place}"
                place += 1
    number = 0
    for block in _count(parts, "up_blocks"):
        for layer in _count(parts, f"{block}.resnets"):
            yield from _together(parts, layer, f"output_blocks.{number}")
            number += 1
        if f"{block}.upsamplers.0" in parts:
            place = 2 if f"{block}.attentions.0" in parts else 1
            yield f"{block}.upsamplers.0", f"output_blocks.{number - 1}.{place}"


def _together(parts: set[str], resnet: str, place: str) -> Iterator[tuple[str, str]]:
    yield resnet, f"{place}.0"
    attention = resnet.replace("resnets", "attentions")
    if attention in parts:
        yield attention, f"{place}.1"


def _count(parts: set[str], stem: str) -> Iterator[str]:
    """Yield ``stem.0``, ``stem.1`` ... as long as there are any."""
    number = 0
    while any(part == f"{stem}.{number}" or part.startswith(f"{stem}.{number}.") for part in parts):
        yield f"{stem}.{number}"
        number += 1

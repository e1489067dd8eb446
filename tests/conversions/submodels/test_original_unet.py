"""Modules of a U-Net have the names that CompVis published them with."""

from __future__ import annotations

import pytest

from conversions.submodels.original_unet import original_names

RESNET = ("norm1", "conv1", "time_emb_proj", "norm2", "conv2")


def unet(levels: int, layers: int, *, attentions: set[int], middle: bool = True) -> list[str]:
    """Return tensors of a U-Net as diffusers names them; levels with attention are numbered from the top."""
    parts = []
    for side, count in (("down", layers), ("up", layers + 1)):
        for block in range(levels):
            level = block if side == "down" else levels - 1 - block
            for layer in range(count):
                parts += [f"{side}_blocks.{block}.resnets.{layer}.{each}" for each in RESNET]
                if level in attentions:
                    attention = f"{side}_blocks.{block}.attentions.{layer}"
                    parts += [f"{attention}.proj_in", f"{attention}.transformer_blocks.0.attn1.to_q"]
            if block < levels - 1:
                parts.append(f"{side}_blocks.{block}.{side}samplers.0.conv")
    parts += [f"mid_block.resnets.{layer}.{each}" for layer in range(2) for each in RESNET]
    parts += ["mid_block.attentions.0.proj_in"] if middle else []
    parts += ["down_blocks.1.resnets.0.conv_shortcut", "conv_in", "conv_norm_out", "conv_out"]
    parts += ["time_embedding.linear_1", "time_embedding.linear_2"]
    return [f"{part}.{kind}" for part in parts for kind in ("weight", "bias")]


# Source: the names in v1-5-pruned.safetensors.
STABLE_DIFFUSION = {
    "conv_in": "input_blocks.0.0",
    "down_blocks.0.resnets.0.norm1": "input_blocks.1.0.in_layers.0",
    "down_blocks.0.resnets.0.conv1": "input_blocks.1.0.in_layers.2",
    "down_blocks.0.resnets.1.conv2": "input_blocks.2.0.out_layers.3",
    "down_blocks.0.attentions.1.proj_in": "input_blocks.2.1.proj_in",
    "down_blocks.0.downsamplers.0.conv": "input_blocks.3.0.op",
    "down_blocks.1.resnets.0.conv_shortcut": "input_blocks.4.0.skip_connection",
    "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q": (
        "input_blocks.4.1.transformer_blocks.0.attn1.to_q"
    ),
    "down_blocks.2.downsamplers.0.conv": "input_blocks.9.0.op",
    "down_blocks.3.resnets.0.norm2": "input_blocks.10.0.out_layers.0",
    "down_blocks.3.resnets.1.time_emb_proj": "input_blocks.11.0.emb_layers.1",
    "mid_block.resnets.0.conv1": "middle_block.0.in_layers.2",
    "mid_block.attentions.0.proj_in": "middle_block.1.proj_in",
    "mid_block.resnets.1.conv1": "middle_block.2.in_layers.2",
    "up_blocks.0.resnets.0.conv1": "output_blocks.0.0.in_layers.2",
    "up_blocks.0.upsamplers.0.conv": "output_blocks.2.1.conv",
    "up_blocks.1.attentions.2.proj_in": "output_blocks.5.1.proj_in",
    "up_blocks.1.upsamplers.0.conv": "output_blocks.5.2.conv",
    "up_blocks.3.resnets.2.conv2": "output_blocks.11.0.out_layers.3",
    "up_blocks.3.attentions.2.transformer_blocks.0.attn1.to_q": (
        "output_blocks.11.1.transformer_blocks.0.attn1.to_q"
    ),
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}


@pytest.mark.parametrize(("diffusers", "original"), STABLE_DIFFUSION.items())
def test_stable_diffusion(diffusers: str, original: str) -> None:
    names = original_names(unet(4, 2, attentions={0, 1, 2}))
    assert names[diffusers] == original


def test_every_module_has_a_place_of_its_own() -> None:
    tensors = unet(4, 2, attentions={0, 1, 2})
    names = original_names(tensors)
    assert set(names) == {name.rpartition(".")[0] for name in tensors}
    assert len(set(names.values())) == len(names)


def test_without_attention_in_the_middle_its_resnets_follow_each_other() -> None:
    names = original_names(unet(3, 1, attentions={1, 2}, middle=False))
    assert names["mid_block.resnets.1.conv1"] == "middle_block.1.in_layers.2"
    assert names["down_blocks.2.resnets.0.conv1"] == "input_blocks.5.0.in_layers.2"
    assert names["up_blocks.2.resnets.1.conv1"] == "output_blocks.5.0.in_layers.2"


def test_xl_is_told_of_sizes_and_what_is_no_part_of_it_has_no_name() -> None:
    tensors = [*unet(3, 2, attentions={1, 2}), "add_embedding.linear_1.weight", "add_embedding.linear_2.bias"]
    names = original_names([*tensors, "strange.module.weight", "down_blocks.0.strange.0.weight"])
    assert names["add_embedding.linear_1"] == "label_emb.0.0"
    assert names["add_embedding.linear_2"] == "label_emb.0.2"
    assert not [name for name in names if "strange" in name]

"""What an adapter that does not fit seems made for, and how much of it is shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from conversions.checkpoint.safetensors_header import StoredTensor
from conversions.errors import ConversionError
from conversions.family import family_named
from conversions.weights.lora.adapter_file import AdapterFile, Layer
from conversions.weights.lora.match import Matched, match, unmatched_notice

SD1 = family_named("stable-diffusion")
PATH = Path("style.safetensors")


def layer(module: str, **shapes: tuple[int, ...]) -> Layer:
    parts = {
        part: StoredTensor(name=part, file="a", dtype="F32", shape=shape, offset=0, size_bytes=4)
        for part, shape in shapes.items()
    }
    return Layer(module=module, parts=parts, keys=(f"{module}.x",), scale=1.0)


def refused(*layers: Layer, strange: tuple[str, ...] = ()) -> ConversionError:
    """Match with a model that has none of the modules."""
    adapter = AdapterFile(path=PATH, sha256="", layers=layers, strange=strange)
    components: dict[str, Any] = {"unet": {}, "text_encoder": {}}
    with pytest.raises(ConversionError) as caught:
        match(adapter, components, SD1, ignore_unmatched=False)
    assert caught.value.code == "lora.foreign"
    return caught.value


@pytest.mark.parametrize(
    ("module", "title"),
    [
        ("lora_unet_double_blocks_0_img_attn_proj", "FLUX"),
        ("transformer.single_transformer_blocks.0.attn.to_q", "FLUX"),
        ("lora_unet_single_blocks_0_linear1", "FLUX"),
        ("diffusion_model.joint_blocks.0.x_block.attn.qkv", "Stable Diffusion 3"),
        ("transformer.transformer_blocks.0.attn.to_q", "Stable Diffusion 3 or FLUX"),
        ("lora_prior_unet_down_blocks_0", "Stable Cascade"),
        ("diffusion_model.layers.0.attention.qkv", "Lumina"),
        ("diffusion_model.blocks.0.self_attn.q", "Wan"),
    ],
)
def test_modules_of_other_architectures_tell_which(module: str, title: str) -> None:
    said = f"It looks like an adapter for {title}; this is Stable Diffusion 1.x."
    assert refused(layer(module, down=(4, 64))).message.endswith(said)
    assert refused(strange=(f"{module}.weight",)).message.endswith(said)


@pytest.mark.parametrize("module", ["lora_x_attn2_to_k", "x.attn2.to_k", "lora_x_attn2_to_v", "x.attn2.to_v"])
@pytest.mark.parametrize("part", ["down", "hada_w1_b"])
def test_the_width_of_prompts_tells_the_family(module: str, part: str) -> None:
    assert "an adapter for Stable Diffusion XL" in refused(layer(module, **{part: (4, 2048)})).message
    # Its own family's width, an unknown one, other layers, and convolutions tell nothing.
    assert "looks like" not in refused(layer(module, **{part: (4, 768)})).message
    assert "looks like" not in refused(layer(module, **{part: (4, 7)})).message
    assert "looks like" not in refused(layer(module, **{part: (4, 2048, 1, 1)})).message
    assert "looks like" not in refused(layer(module, up=(4, 2048))).message
    assert "looks like" not in refused(layer(module.replace("attn2", "attn1"), **{part: (4, 2048)})).message


def test_the_first_eight_keys_are_shown() -> None:
    for count, more in ((8, ""), (9, " and 1 more"), (20, " and 12 more")):
        shown = ", ".join(f"k{place}" for place in range(8))
        message = refused(strange=tuple(f"k{place}" for place in range(count))).message
        assert message == f"{PATH} has nothing that belongs to this model; its keys are {shown}{more}."
    adapter = AdapterFile(path=PATH, sha256="", layers=(), strange=())
    assert unmatched_notice(adapter, Matched(layers={}, unmatched=())) == ""
    notice = unmatched_notice(adapter, Matched(layers={}, unmatched=tuple("abcdefghij")))
    assert notice == (
        f"{PATH}: left out, as they belong to nothing in this model: a, b, c, d, e, f, g, h and 2 more."
    )

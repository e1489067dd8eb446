"""What the shapes of a single file's tensors tell of its transformer, and of the family it belongs to."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from conversions.families.shared import unet_structure
from conversions.families.shared.sana_names import single_file
from conversions.families.shared.transformer_names import columns_of, count_of, rows_of
from conversions.family import family_named


def tensors(shapes: dict[str, tuple[int, ...]]) -> Any:
    return {name: SimpleNamespace(name=name, shape=shape) for name, shape in shapes.items()}


def structure(family: str, shapes: dict[str, tuple[int, ...]], **config: Any) -> dict[str, Any]:
    layout = family_named(family).single_file
    assert layout is not None
    return dict(layout.structure(tensors(shapes), config))


FLUX = {
    "img_in.weight": (3072, 64),
    "txt_in.weight": (3072, 4096),
    "vector_in.in_layer.weight": (3072, 768),
    "final_layer.linear.weight": (64, 3072),
    "double_blocks.0.img_attn.norm.query_norm.scale": (128,),
    "double_blocks.18.img_attn.proj.weight": (3072, 3072),
    "single_blocks.37.linear2.weight": (3072, 15360),
}


def test_flux() -> None:
    published = {
        "in_channels": 64,
        "num_layers": 19,
        "num_single_layers": 38,
        "attention_head_dim": 128,
        "num_attention_heads": 24,
        "joint_attention_dim": 4096,
        "pooled_projection_dim": 768,
        "guidance_embeds": False,
    }
    assert structure("flux", FLUX) == published
    dev = {**FLUX, "guidance_in.in_layer.weight": (3072, 256)}
    assert structure("flux", dev) == {**published, "guidance_embeds": True}
    fill = {**FLUX, "img_in.weight": (3072, 384)}
    assert structure("flux", fill) == {**published, "in_channels": 384, "out_channels": 64}
    for lacking in ("img_in.weight", "double_blocks.0.img_attn.norm.query_norm.scale"):
        rest = {name: shape for name, shape in FLUX.items() if name != lacking}
        assert "num_attention_heads" not in structure("flux", rest)


SD3 = {
    "x_embedder.proj.weight": (1536, 16, 2, 2),
    "context_embedder.weight": (1536, 4096),
    "y_embedder.mlp.0.weight": (1536, 2048),
    "final_layer.linear.weight": (64, 1536),
    "pos_embed": (1, 192 * 192, 1536),
    "joint_blocks.0.x_block.attn2.qkv.weight": (4608, 1536),
    "joint_blocks.23.x_block.attn.qkv.weight": (4608, 1536),
}


def test_stable_diffusion_3() -> None:
    published = {
        "in_channels": 16,
        "out_channels": 16,
        "num_attention_heads": 24,
        "joint_attention_dim": 4096,
        "caption_projection_dim": 1536,
        "pooled_projection_dim": 2048,
        "pos_embed_max_size": 192,
        "num_layers": 24,
        "attention_head_dim": 64,
        "dual_attention_layers": [0],
        "qk_norm": None,
    }
    assert structure("stable-diffusion-3", SD3) == published
    normed = {**SD3, "joint_blocks.0.x_block.attn.ln_q.weight": (32,)}
    found = structure("stable-diffusion-3", normed, attention_head_dim=48, patch_size=4)
    assert found == {
        **published,
        "attention_head_dim": 32,
        "num_attention_heads": 48,
        "qk_norm": "rms_norm",
        "out_channels": 4,
    }
    assert structure("stable-diffusion-3", SD3, attention_head_dim=48)["num_attention_heads"] == 32


SANA = {
    "x_embedder.proj.weight": (2240, 32, 1, 1),
    "y_embedder.y_proj.fc1.weight": (2240, 2304),
    "blocks.0.mlp.inverted_conv.conv.weight": (11200, 2240, 1, 1),
    "blocks.19.attn.proj.weight": (2240, 2240),
}


def test_sana() -> None:
    published = {
        "in_channels": 32,
        "caption_channels": 2304,
        "cross_attention_dim": 2240,
        "num_attention_heads": 70,
        "num_layers": 20,
        "mlp_ratio": 2.5,
        "guidance_embeds": False,
    }
    assert structure("sana", SANA) == published
    sprint = {**SANA, "cfg_embedder.mlp.0.weight": (2240, 256), "blocks.0.attn.q_norm.weight": (2240,)}
    assert structure("sana-sprint", sprint, attention_head_dim=16) == {
        **published,
        "num_attention_heads": 140,
        "guidance_embeds": True,
        "qk_norm": "rms_norm_across_heads",
    }


def test_sana_sprint_and_pixart_are_told_from_sana() -> None:
    layouts = {"sana": single_file(guidance=False), "sana-sprint": single_file(guidance=True)}

    def differences(family: str, more: dict[str, tuple[int, ...]]) -> tuple[str, ...]:
        return layouts[family].recognise(tensors({**SANA, **more}))

    guided = {"cfg_embedder.mlp.0.weight": (2240, 256)}
    pixart = {"blocks.0.attn.qkv.bias": (6720,)}
    assert differences("sana", {}) == differences("sana-sprint", guided) == ()
    assert differences("sana", guided) == ("it reads the guidance scale",)
    assert differences("sana-sprint", {}) == ("it does not read the guidance scale",)
    assert differences("sana", pixart) == ("its blocks are PixArt's",)
    assert differences("sana-sprint", {**pixart, **guided}) == ("its blocks are PixArt's",)
    for layout in layouts.values():  # a base of the other family does not fit
        assert layout.fixed == ("in_channels", "caption_channels", "cross_attention_dim", "guidance_embeds")


# Two levels with two layers each, of which the second has attention, and what XL and a LCM are told.
UNET = {
    "input_blocks.0.0.weight": (32, 4, 3, 3),
    "input_blocks.1.0.out_layers.3.weight": (32, 32, 3, 3),
    "input_blocks.2.0.out_layers.3.weight": (32, 32, 3, 3),
    "input_blocks.3.0.op.weight": (32, 32, 3, 3),
    "input_blocks.4.0.out_layers.3.weight": (64, 64, 3, 3),
    "input_blocks.4.1.proj_in.weight": (64, 64),
    "input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight": (64, 768),
    "input_blocks.5.0.out_layers.3.weight": (64, 64, 3, 3),
    "input_blocks.5.1.transformer_blocks.2.attn2.to_k.weight": (64, 768),
    "middle_block.1.transformer_blocks.0.attn2.to_k.weight": (64, 768),
    "label_emb.0.0.weight": (128, 2816),
    "time_embed.cond_proj.weight": (32, 256),
}
UNET_CONFIG = {
    "in_channels": 4,
    "block_out_channels": [32, 64],
    "layers_per_block": 2,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
    "transformer_layers_per_block": [5, 1],
    "cross_attention_dim": 768,
    "use_linear_projection": True,
    "projection_class_embeddings_input_dim": 2816,
    "time_cond_proj_dim": 256,
}


def test_a_u_net() -> None:
    found = unet_structure.structure_of_file(tensors(UNET))
    assert found == {**unet_structure.structure_of_config(UNET_CONFIG)}
    assert found["transformer_layers"] == [0, 1]
    assert unet_structure.differences(tensors(UNET), UNET_CONFIG) == ()
    other = {**UNET_CONFIG, "in_channels": 9, "mid_block_type": None, "transformer_layers_per_block": 2}
    assert unet_structure.differences(tensors(UNET), other, free=("in_channels",)) == (
        "transformer_layers is [0, 1] instead of [0, 2]",
        "middle is True instead of False",
    )


def test_a_u_net_s_missing_or_strange_tensors_count_as_nought() -> None:
    read = unet_structure.structure_of_file
    first, strange = "input_blocks.1.0.out_layers.3.weight", "input_blocks.1.0.in_layers.0.weight"
    rest = {name: shape for name, shape in UNET.items() if name != first}
    assert read(tensors({**rest, strange: (32,)}))["block_out_channels"] == [0, 64]
    assert read(tensors({**UNET, first: ()}))["block_out_channels"] == [0, 64]
    assert read(tensors({})) == {
        "in_channels": 0,
        "block_out_channels": [0],
        "layers_per_block": 0,
        "transformer_layers": [0],
        "middle": False,
        "cross_attention_dim": 0,
        "use_linear_projection": False,
        "projection_class_embeddings_input_dim": None,
        "time_cond_proj_dim": None,
    }
    convolved = {**UNET, "input_blocks.4.1.proj_in.weight": (64, 64, 1, 1)}
    assert not read(tensors(convolved))["use_linear_projection"]


def test_what_a_file_lacks_or_has_in_no_shape_is_not_known() -> None:
    found = tensors({"blocks.9.a": (3,), "blocks.10.b": (0, 4), "xblocks.11.c": (), "blocks.1000.d": (2, 0)})
    assert count_of(found, "blocks") == 11
    assert count_of(found, "others") == 0
    assert [rows_of(found, name) for name in (*found, "none")] == [3, None, None, 2, None]
    assert [columns_of(found, name) for name in (*found, "none")] == [None, 4, None, None, None]

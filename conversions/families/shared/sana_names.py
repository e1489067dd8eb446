"""NVIDIA's names of Sana's transformer, what tensors tell of its configuration, and single files of both."""

from __future__ import annotations

from dataclasses import dataclass

from conversions.families.shared.original_names import SameNames
from conversions.families.shared.transformer_names import (
    Parts,
    Target,
    columns_of,
    count_of,
    known,
    renamed,
    rows_of,
)
from conversions.graph_kind import Config
from conversions.single_file_layout import FileComponent, SingleFileLayout
from conversions.weights.expression import Tensors

_GUIDANCE_WEIGHT = "cfg_embedder.mlp.0.weight"
_ENDS = {
    "x_embedder.proj": "patch_embed.proj",
    "y_embedder.y_proj.fc1": "caption_projection.linear_1",
    "y_embedder.y_proj.fc2": "caption_projection.linear_2",
    "attention_y_norm": "caption_norm",
    "t_block.1": "time_embed.linear",
    "cfg_embedder.mlp.0": "time_embed.guidance_embedder.linear_1",
    "cfg_embedder.mlp.2": "time_embed.guidance_embedder.linear_2",
    "final_layer.linear": "proj_out",
    "final_layer.scale_shift_table": "scale_shift_table",
}
_BLOCK = {
    "scale_shift_table": "scale_shift_table",
    "attn.q_norm": "attn1.norm_q",
    "attn.k_norm": "attn1.norm_k",
    "attn.proj": "attn1.to_out.0",
    "cross_attn.q_linear": "attn2.to_q",
    "cross_attn.q_norm": "attn2.norm_q",
    "cross_attn.k_norm": "attn2.norm_k",
    "cross_attn.proj": "attn2.to_out.0",
    "mlp.inverted_conv.conv": "ff.conv_inverted",
    "mlp.depth_conv.conv": "ff.conv_depth",
    "mlp.point_conv.conv": "ff.conv_point",
}
# What takes the place of a prompt in training, positions, which are computed, and a weight of training.
_UNUSED = ("y_embedder.y_embedding", "pos_embed", "logvar_linear.weight", "logvar_linear.bias")


@dataclass(frozen=True, kw_only=True)
class SanaNames:
    """The names of NVIDIA's release to those of ``SanaTransformer2DModel``.

    Source: ``scripts/convert_sana_to_diffusers.py`` of diffusers; a test compares with diffusers' loader.
    """

    def __call__(self, tensors: Tensors) -> Tensors:
        """Return the tensors by their new names; those that are unknown keep theirs."""
        # A model that reads guidance has no module around what embeds the time.
        home = "time_embed" if _GUIDANCE_WEIGHT in tensors else "time_embed.emb"
        modules: dict[str, Target] = {
            **_ENDS,
            "t_embedder.mlp.0": f"{home}.timestep_embedder.linear_1",
            "t_embedder.mlp.2": f"{home}.timestep_embedder.linear_2",
        }
        for block in range(count_of(tensors, "blocks")):
            old, new = f"blocks.{block}", f"transformer_blocks.{block}"
            modules |= {f"{old}.{name}": f"{new}.{other}" for name, other in _BLOCK.items()}
            modules[f"{old}.attn.qkv"] = Parts(modules=tuple(f"{new}.attn1.to_{each}" for each in "qkv"))
            modules[f"{old}.cross_attn.kv_linear"] = Parts(
                modules=tuple(f"{new}.attn2.to_{each}" for each in "kv")
            )
        return renamed({name: each for name, each in tensors.items() if name not in _UNUSED}, modules)


def _names(config: Config) -> SanaNames:
    del config
    return SanaNames()


def _same_names(config: Config) -> SameNames:
    del config
    return SameNames()


def _structure(tensors: Tensors, config: Config) -> Config:
    """Read the fields of a configuration that show in the tensors."""
    width = rows_of(tensors, "x_embedder.proj.weight")
    inner = rows_of(tensors, "blocks.0.mlp.inverted_conv.conv.weight")
    head = config.get("attention_head_dim") or 32
    normed = "blocks.0.attn.q_norm.weight" in tensors
    return known(
        in_channels=columns_of(tensors, "x_embedder.proj.weight"),
        caption_channels=columns_of(tensors, "y_embedder.y_proj.fc1.weight"),
        cross_attention_dim=width,
        num_attention_heads=width // head if width else None,
        num_layers=count_of(tensors, "blocks"),
        mlp_ratio=inner / 2 / width if width and inner else None,
        guidance_embeds=_GUIDANCE_WEIGHT in tensors,
        qk_norm="rms_norm_across_heads" if normed else None,
    )


def _of_sana(tensors: Tensors) -> tuple[str, ...]:
    return ("it reads the guidance scale",) if _GUIDANCE_WEIGHT in tensors else _of_both(tensors)


def _of_sprint(tensors: Tensors) -> tuple[str, ...]:
    return _of_both(tensors) if _GUIDANCE_WEIGHT in tensors else ("it does not read the guidance scale",)


def _of_both(tensors: Tensors) -> tuple[str, ...]:
    """Tell PixArt, whose blocks have a bias where Sana's have none."""
    return ("its blocks are PixArt's",) if "blocks.0.attn.qkv.bias" in tensors else ()


def single_file(*, guidance: bool) -> SingleFileLayout:
    """Return the layout of files that hold a denoiser.

    Args:
        guidance: Whether it reads the guidance scale, as Sana-Sprint's does.
    """
    return SingleFileLayout(
        components=(
            FileComponent(
                name="transformer",
                prefixes=("model.diffusion_model.", ""),
                marker="blocks.0.cross_attn.q_linear.weight",
                names=_names,
            ),
            # With diffusers' names: another autoencoder may take the place of the base's.
            FileComponent(
                name="vae", prefixes=("vae.", ""), marker="decoder.conv_in.weight", names=_same_names
            ),
        ),
        denoiser="transformer",
        recognise=_of_sprint if guidance else _of_sana,
        # Gemma's tokenizer does not come with the program.
        small_files=None,
        structure=_structure,
        # The size of cross-attention's heads shows in no tensor.
        fixed=("in_channels", "caption_channels", "cross_attention_dim", "guidance_embeds"),
    )

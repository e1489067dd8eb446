"""What the original transformers of FLUX.1 and FLUX.2 share: names of ends and double blocks, structure.

Source: ``Flux`` and ``DoubleStreamBlock`` of black-forest-labs/flux and black-forest-labs/flux2 beside
diffusers' classes; a test compares with diffusers' loader.
"""

from __future__ import annotations

from collections.abc import Mapping

from conversions.families.shared.transformer_names import (
    Halves,
    Parts,
    Target,
    columns_of,
    count_of,
    known,
    rows_of,
)
from conversions.graph_kind import Config
from conversions.weights.expression import Tensors

_ENDS = {"img_in": "x_embedder", "txt_in": "context_embedder", "final_layer.linear": "proj_out"}
_ATTENTION = {
    "img_attn": ("to_q", "to_k", "to_v"),
    "txt_attn": ("add_q_proj", "add_k_proj", "add_v_proj"),
}
_DOUBLE = {
    "img_attn.norm.query_norm": "attn.norm_q",
    "img_attn.norm.key_norm": "attn.norm_k",
    "txt_attn.norm.query_norm": "attn.norm_added_q",
    "txt_attn.norm.key_norm": "attn.norm_added_k",
    "img_attn.proj": "attn.to_out.0",
    "txt_attn.proj": "attn.to_add_out",
}


def embeddings(home: str, modules: Mapping[str, str]) -> dict[str, str]:
    """Return the layers of embedding networks of two layers each.

    Args:
        home: Where diffusers has them.
        modules: diffusers' name of each network, by its original one.
    """
    layers = {"in_layer": "linear_1", "out_layer": "linear_2"}
    return {
        f"{old}.{layer}": f"{home}.{new}.{other}"
        for old, new in modules.items()
        for layer, other in layers.items()
    }


def modules_of(tensors: Tensors, double: Mapping[str, str]) -> dict[str, Target]:
    """Return what becomes of the ends' layers, and of those of the blocks with two streams.

    Args:
        tensors: By their original names, without prefix.
        double: Names of layers of such a block that are the model's own.
    """
    modules: dict[str, Target] = {**_ENDS, "final_layer.adaLN_modulation.1": Halves(module="norm_out.linear")}
    for block in range(count_of(tensors, "double_blocks")):
        old, new = f"double_blocks.{block}", f"transformer_blocks.{block}"
        modules |= {f"{old}.{name}": f"{new}.{other}" for name, other in {**_DOUBLE, **double}.items()}
        for stream, parts in _ATTENTION.items():
            modules[f"{old}.{stream}.qkv"] = Parts(modules=tuple(f"{new}.attn.{part}" for part in parts))
    return modules


def structure_of_file(tensors: Tensors, config: Config) -> Config:
    """Read the fields of a configuration that show in the tensors."""
    del config
    channels = columns_of(tensors, "img_in.weight")
    out = rows_of(tensors, "final_layer.linear.weight")
    width, head = (
        rows_of(tensors, name) for name in ("img_in.weight", "double_blocks.0.img_attn.norm.query_norm.scale")
    )
    return known(
        in_channels=channels,
        out_channels=None if out == channels else out,
        num_layers=count_of(tensors, "double_blocks"),
        num_single_layers=count_of(tensors, "single_blocks"),
        attention_head_dim=head,
        num_attention_heads=width // head if width and head else None,
        joint_attention_dim=columns_of(tensors, "txt_in.weight"),
        pooled_projection_dim=columns_of(tensors, "vector_in.in_layer.weight"),
        guidance_embeds="guidance_in.in_layer.weight" in tensors,
    )

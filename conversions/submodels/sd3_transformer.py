"""The denoiser of Stable Diffusion 3 and 3.5, ``SD3Transformer2DModel``: text and image in one attention.

Source: Esser et al. 2024, arXiv:2403.03206 (MMDiT); 3.5 adds norms of queries and keys, and in some layers a
second attention of the image alone.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from conversions.graph_kind import Config, GraphKind, TensorSpec
from conversions.submodels import config_fields
from conversions.submodels.library_class import diffusers_class, diffusers_component

# Source: the signature of diffusers 0.42's SD3Transformer2DModel; a test compares.
DEFAULTS: Config = {
    "patch_size": 2,
    "in_channels": 16,
    "num_layers": 18,
    "attention_head_dim": 64,
    "num_attention_heads": 18,
    "joint_attention_dim": 4096,
    "caption_projection_dim": 1152,
    "pooled_projection_dim": 2048,
    "out_channels": 16,
    "pos_embed_max_size": 96,
    "dual_attention_layers": [],
    "qk_norm": None,
}


def _value(config: Config, name: str) -> Any:
    return config.get(name, DEFAULTS[name])


def _image(channels: int) -> tuple[int | str, ...]:
    return "batch", channels, "height", "width"


def _inputs(config: Config) -> tuple[TensorSpec, ...]:
    """Return the inputs, with optimum's names."""
    states = ("batch", "sequence", _value(config, "joint_attention_dim"))
    pooled = ("batch", _value(config, "pooled_projection_dim"))
    return (
        TensorSpec(name="hidden_states", dtype="float", shape=_image(_value(config, "in_channels"))),
        TensorSpec(name="encoder_hidden_states", dtype="float", shape=states),
        TensorSpec(name="pooled_projections", dtype="float", shape=pooled),
        TensorSpec(name="timestep", dtype="float32", shape=(1,)),
    )


def _outputs(config: Config) -> tuple[TensorSpec, ...]:
    channels = _value(config, "out_channels") or _value(config, "in_channels")
    return (TensorSpec(name="out_hidden_states", dtype="float", shape=_image(channels)),)


def _reference(component: Any) -> Any:
    import torch

    class Transformer(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = component

        def forward(
            self,
            hidden_states: torch.Tensor,
            encoder_hidden_states: torch.Tensor,
            pooled_projections: torch.Tensor,
            timestep: torch.Tensor,
        ) -> torch.Tensor:
            predicted: torch.Tensor = self.model(
                hidden_states,
                encoder_hidden_states,
                pooled_projections,
                timestep.expand(len(hidden_states)),
                return_dict=False,
            )[0]
            return predicted

    return Transformer()


def _wrap(component: Any) -> Any:
    """Wrap a transformer in the order of diffusers' forward, with patches and positions that trace well."""
    import torch

    from conversions.graphs.export_rewrites import to_tokens
    from conversions.graphs.position_rewrites import central_positions
    from conversions.graphs.transformer_rewrites import unpatchify

    class Transformer(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = component

        def forward(
            self,
            hidden_states: torch.Tensor,
            encoder_hidden_states: torch.Tensor,
            pooled_projections: torch.Tensor,
            timestep: torch.Tensor,
        ) -> torch.Tensor:
            model, table = self.model, self.model.pos_embed
            patches = table.proj(hidden_states)
            places = central_positions(table.pos_embed, patches, table.pos_embed_max_size)
            image = to_tokens(patches) + places
            words = model.context_embedder(encoder_hidden_states)
            condition = model.time_text_embed(timestep, pooled_projections)
            for block in model.transformer_blocks:
                words, image = block(hidden_states=image, encoder_hidden_states=words, temb=condition)
            image = model.proj_out(model.norm_out(image, condition))
            return unpatchify(image, hidden_states, model.config.patch_size)

    return Transformer()


def _timestep(config: Config, shape: tuple[int, ...], random: Any) -> Any:
    import numpy

    del config, random
    return numpy.full(shape, 481.0, numpy.float32)


SD3_TRANSFORMER = GraphKind(
    fields=config_fields.SD3_TRANSFORMER,
    id="sd3_transformer",
    class_name="SD3Transformer2DModel",
    defaults=DEFAULTS,
    # The size that it was trained at; the table of positions, which is stored, has it inside.
    irrelevant=frozenset({"sample_size"}),
    inputs=_inputs,
    outputs=_outputs,
    component_class=partial(diffusers_class, "SD3Transformer2DModel"),
    create=partial(diffusers_component, "SD3Transformer2DModel"),
    wrap=_wrap,
    reference=_reference,
    quantizable=True,
    # What every layer is modulated by, and the layers at the denoiser's two ends: small. The modulation of
    # each layer is a third of all weights, so it is not among them.
    sensitive=(r"^(time_text_embed|context_embedder|norm_out|proj_out)\.",),
    sizes={"batch": 2, "height": 24, "width": 32, "sequence": 77},
    # Even, since two latents make a patch.
    traced_sizes={"batch": 2, "height": 66, "width": 74, "sequence": 13},
    example={"timestep": _timestep},
)

"""The denoiser of FLUX.1, ``FluxTransformer2DModel``, on packed latents and with its positions as inputs."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from conversions.graph_kind import Config, GraphKind, TensorSpec
from conversions.recipe import Floats
from conversions.submodels import config_fields
from conversions.submodels.library_class import diffusers_class, diffusers_component
from conversions.submodels.rotary import (
    example_timestep,
    near_square,
    rotary_angles,
    table_examples,
    table_inputs,
)

# Source: the signature of diffusers 0.42's FluxTransformer2DModel; a test compares.
DEFAULTS: Config = {
    "patch_size": 1,
    "in_channels": 64,
    "out_channels": None,
    "num_layers": 19,
    "num_single_layers": 38,
    "attention_head_dim": 128,
    "num_attention_heads": 24,
    "joint_attention_dim": 4096,
    "pooled_projection_dim": 768,
    "guidance_embeds": False,
}
# Positions are inputs.
IRRELEVANT = frozenset({"axes_dims_rope"})

AXES_DIMS = (16, 56, 56)
# Source: FluxTransformer2DModel.__init__ of diffusers.
_THETA = 10_000.0


def value_of(config: Config, name: str) -> Any:
    """Return a field of a configuration, or its default."""
    return config.get(name, DEFAULTS[name])


def _inputs(config: Config) -> tuple[TensorSpec, ...]:
    half = value_of(config, "attention_head_dim") // 2
    states = ("batch", "sequence", value_of(config, "joint_attention_dim"))
    pooled = ("batch", value_of(config, "pooled_projection_dim"))
    patches = ("batch", "tokens", value_of(config, "in_channels"))
    guidance = [TensorSpec(name="guidance", dtype="float32", shape=(1,))]
    return (
        TensorSpec(name="hidden_states", dtype="float", shape=patches),
        TensorSpec(name="encoder_hidden_states", dtype="float", shape=states),
        TensorSpec(name="pooled_projections", dtype="float", shape=pooled),
        TensorSpec(name="timestep", dtype="float32", shape=(1,)),
        *table_inputs(half),
        *(guidance if value_of(config, "guidance_embeds") else ()),
    )


def _outputs(config: Config) -> tuple[TensorSpec, ...]:
    channels = value_of(config, "out_channels") or value_of(config, "in_channels")
    width = channels * value_of(config, "patch_size") ** 2
    return (TensorSpec(name="out_hidden_states", dtype="float", shape=("batch", "tokens", width)),)


def _wrap(component: Any) -> Any:
    """Wrap a transformer in the order of diffusers' forward."""
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
            image_rotary_cos: torch.Tensor,
            image_rotary_sin: torch.Tensor,
            text_rotary_cos: torch.Tensor,
            text_rotary_sin: torch.Tensor,
            guidance: torch.Tensor | None = None,
        ) -> torch.Tensor:
            model = self.model
            positions = (
                torch.cat([text_rotary_cos, image_rotary_cos]),
                torch.cat([text_rotary_sin, image_rotary_sin]),
            )
            scales = (timestep * 1000,) if guidance is None else (timestep * 1000, guidance * 1000)
            condition = model.time_text_embed(*scales, pooled_projections)
            image = model.x_embedder(hidden_states)
            words = model.context_embedder(encoder_hidden_states)
            for block in (*model.transformer_blocks, *model.single_transformer_blocks):
                words, image = block(
                    hidden_states=image,
                    encoder_hidden_states=words,
                    temb=condition,
                    image_rotary_emb=positions,
                )
            predicted: torch.Tensor = model.proj_out(model.norm_out(image, condition))
            return predicted

    return Transformer()


def _reference(component: Any) -> Any:
    """Wrap a transformer with diffusers' own forward, whose positions are those of the inputs."""
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
            image_rotary_cos: torch.Tensor,
            image_rotary_sin: torch.Tensor,
            text_rotary_cos: torch.Tensor,
            text_rotary_sin: torch.Tensor,
            guidance: torch.Tensor | None = None,
        ) -> torch.Tensor:
            tables = ((text_rotary_cos, image_rotary_cos), (text_rotary_sin, image_rotary_sin))
            positions = tuple(torch.cat(each).repeat_interleave(2, dim=1) for each in tables)
            self.model.pos_embed.forward = lambda _: positions
            images = len(hidden_states)
            predicted: torch.Tensor = self.model(
                hidden_states,
                encoder_hidden_states,
                pooled_projections,
                timestep.expand(images),
                torch.zeros(hidden_states.shape[1], 3),
                torch.zeros(encoder_hidden_states.shape[1], 3),
                None if guidance is None else guidance.expand(images),
                return_dict=False,
            )[0]
            return predicted

    return Transformer()


def rotary_tables(config: Config, rows: int, columns: int) -> tuple[Floats, Floats]:
    """Return cosines and sines of an image's positions, float32 ``[rows * columns, size of a head / 2]``.

    Source: ``_prepare_latent_image_ids`` of diffusers' FluxPipeline; all words stand at the origin.
    """
    positions = np.zeros((rows * columns, 3), dtype=np.int64)
    positions[:, 1:] = np.indices((rows, columns)).reshape(2, -1).T
    angles = rotary_angles(positions, config.get("axes_dims_rope") or AXES_DIMS, _THETA)
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)


def text_tables(config: Config, words: int) -> tuple[Floats, Floats]:
    """Return cosines and sines of the words' positions, float32 ``[words, size of a head / 2]``."""
    shape = (words, value_of(config, "attention_head_dim") // 2)
    return np.ones(shape, np.float32), np.zeros(shape, np.float32)


def _example_table(part: str, which: int, config: Config, shape: tuple[int, ...], random: Any) -> Any:
    """Make the cosines (0) or sines (1) of the positions of a text, or of an image that is about square."""
    del random
    if part == "text":
        return text_tables(config, shape[0])[which]
    columns, rows = near_square(shape[0])
    return rotary_tables(config, rows, columns)[which]


def _guidance(config: Config, shape: tuple[int, ...], random: Any) -> Any:
    del config, random
    return np.full(shape, 3.5, np.float32)


FLUX_TRANSFORMER = GraphKind(
    fields=config_fields.FLUX_TRANSFORMER,
    id="flux_transformer",
    class_name="FluxTransformer2DModel",
    defaults=DEFAULTS,
    irrelevant=IRRELEVANT,
    inputs=_inputs,
    outputs=_outputs,
    component_class=partial(diffusers_class, "FluxTransformer2DModel"),
    create=partial(diffusers_component, "FluxTransformer2DModel"),
    wrap=_wrap,
    reference=_reference,
    quantizable=True,
    # What every layer is modulated by, and the layers at the denoiser's two ends: small. The modulation of
    # each layer is a quarter of all weights, so it is not among them.
    sensitive=(r"^(time_text_embed|x_embedder|context_embedder|norm_out|proj_out)\.",),
    sizes={"batch": 2, "tokens": 96, "sequence": 77},
    traced_sizes={"batch": 2, "tokens": 99, "sequence": 13},
    example={
        "timestep": example_timestep,
        "guidance": _guidance,
        **table_examples(_example_table),
    },
)

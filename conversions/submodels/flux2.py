"""Flux 2's denoiser, ``Flux2Transformer2DModel``, with its positions as inputs."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

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

# Source: the signature of diffusers 0.42's Flux2Transformer2DModel; a test compares.
DEFAULTS: Config = {
    "patch_size": 1,
    "in_channels": 128,
    "out_channels": None,
    "num_layers": 8,
    "num_single_layers": 48,
    "attention_head_dim": 128,
    "num_attention_heads": 48,
    "joint_attention_dim": 15360,
    "timestep_guidance_channels": 256,
    "mlp_ratio": 3.0,
    "eps": 1e-6,
    "guidance_embeds": True,
}
# Positions are inputs.
IRRELEVANT = frozenset({"axes_dims_rope", "rope_theta"})

AXES_DIMS = (32, 32, 32, 32)
THETA = 2000.0
"""Defaults of the configuration's fields for positions."""

_EXAMPLE_WORDS = 20


def unsupported(config: Config) -> str:
    """Say what of a configuration the graph cannot express; empty where nothing is."""
    if config.get("guidance_embeds", DEFAULTS["guidance_embeds"]):
        return "The denoiser reads the guidance scale (guidance_embeds), which is not supported."
    if config.get("patch_size", 1) != 1:
        return f"The denoiser's patch_size is {config['patch_size']}; 1 is supported."
    return ""


def _inputs(config: Config) -> tuple[TensorSpec, ...]:
    channels = config.get("in_channels", DEFAULTS["in_channels"])
    text = config.get("joint_attention_dim", DEFAULTS["joint_attention_dim"])
    width = config.get("attention_head_dim", DEFAULTS["attention_head_dim"]) // 2
    return (
        TensorSpec(name="hidden_states", dtype="float", shape=("batch", "tokens", channels)),
        TensorSpec(name="encoder_hidden_states", dtype="float", shape=("batch", "sequence", text)),
        TensorSpec(name="timestep", dtype="float32", shape=(1,)),
        *table_inputs(width),
    )


def _outputs(config: Config) -> tuple[TensorSpec, ...]:
    channels = config.get("out_channels") or config.get("in_channels", DEFAULTS["in_channels"])
    return (TensorSpec(name="out_hidden_states", dtype="float", shape=("batch", "tokens", channels)),)


def _wrap(component: Any) -> Any:
    import torch

    class Denoiser(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = component

        def forward(
            self,
            hidden_states: torch.Tensor,
            encoder_hidden_states: torch.Tensor,
            timestep: torch.Tensor,
            image_rotary_cos: torch.Tensor,
            image_rotary_sin: torch.Tensor,
            text_rotary_cos: torch.Tensor,
            text_rotary_sin: torch.Tensor,
        ) -> torch.Tensor:
            """Denoise in two streams, then in one, text first."""
            model = self.model
            time = model.time_guidance_embed(timestep * 1000, None)
            image_change = model.double_stream_modulation_img(time)
            text_change = model.double_stream_modulation_txt(time)
            change = model.single_stream_modulation(time)
            positions = (
                torch.cat([text_rotary_cos, image_rotary_cos]),
                torch.cat([text_rotary_sin, image_rotary_sin]),
            )
            image = model.x_embedder(hidden_states)
            text = model.context_embedder(encoder_hidden_states)
            for block in model.transformer_blocks:
                text, image = block(
                    hidden_states=image,
                    encoder_hidden_states=text,
                    temb_mod_img=image_change,
                    temb_mod_txt=text_change,
                    image_rotary_emb=positions,
                )
            words = text.shape[1]
            both = torch.cat([text, image], 1)
            for block in model.single_transformer_blocks:
                both = block(
                    hidden_states=both,
                    encoder_hidden_states=None,
                    temb_mod=change,
                    image_rotary_emb=positions,
                )
            predicted: torch.Tensor = model.proj_out(model.norm_out(both[:, words:], time))
            return predicted

    return Denoiser()


def _reference(component: Any) -> Any:
    import torch

    class Reference(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = component

        def forward(
            self,
            hidden_states: torch.Tensor,
            encoder_hidden_states: torch.Tensor,
            timestep: torch.Tensor,
            image_rotary_cos: torch.Tensor,
            image_rotary_sin: torch.Tensor,
            text_rotary_cos: torch.Tensor,
            text_rotary_sin: torch.Tensor,
        ) -> torch.Tensor:
            """Run diffusers' own forward, which works out angles from positions by itself."""
            del image_rotary_sin, text_rotary_cos, text_rotary_sin
            dims = self.model.config.axes_dims_rope
            # The angle of a token's row is that of its neighbour until the row ends.
            row = image_rotary_cos[:, dims[0] // 2]
            width = int((row == row[0]).int().cumprod(0).sum())
            predicted: torch.Tensor = self.model(
                hidden_states,
                encoder_hidden_states,
                timestep.expand(len(hidden_states)),
                torch.from_numpy(image_positions(len(row) // width, width)),
                torch.from_numpy(text_positions(encoder_hidden_states.shape[1])),
                return_dict=False,
            )[0]
            return predicted

    return Reference()


def image_positions(rows: int, columns: int) -> NDArray[np.int64]:
    """Return the positions of an image's tokens, ``[tokens, 4]``: time, row, column, place in a text.

    Source: ``_prepare_latent_ids`` of diffusers' Flux2KleinPipeline.
    """
    positions = np.zeros((rows * columns, 4), dtype=np.int64)
    positions[:, 1:3] = np.indices((rows, columns)).reshape(2, -1).T
    return positions


def text_positions(words: int) -> NDArray[np.int64]:
    """Return the positions of a text's tokens, ``[tokens, 4]``.

    Source: ``_prepare_text_ids`` of diffusers' Flux2KleinPipeline.
    """
    positions = np.zeros((words, 4), dtype=np.int64)
    positions[:, 3] = np.arange(words)
    return positions


def rotary_tables(config: Config, positions: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Return cosines and sines of the angles of positions, float32 ``[tokens, size of a head / 2]``."""
    dims = config.get("axes_dims_rope") or AXES_DIMS
    angles = rotary_angles(positions, dims, float(config.get("rope_theta") or THETA))
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)


def _example_table(part: str, which: int, config: Config, shape: tuple[int, ...], random: Any) -> Any:
    """Make the cosines (0) or sines (1) of the positions of an image or a text."""
    del random
    image = part == "image"
    positions = image_positions(*near_square(shape[0])) if image else text_positions(shape[0])
    return rotary_tables(config, positions)[which]


FLUX2 = GraphKind(
    fields=config_fields.FLUX2,
    id="flux2",
    class_name="Flux2Transformer2DModel",
    defaults=DEFAULTS,
    irrelevant=IRRELEVANT,
    inputs=_inputs,
    outputs=_outputs,
    component_class=partial(diffusers_class, "Flux2Transformer2DModel"),
    create=partial(diffusers_component, "Flux2Transformer2DModel"),
    wrap=_wrap,
    reference=_reference,
    quantizable=True,
    # What every block reads, and the layers at the denoiser's two ends.
    sensitive=(
        r"^(time_guidance_embed|x_embedder|context_embedder|norm_out|proj_out)\.",
        r"^(double|single)_stream_modulation",
    ),
    sizes={"batch": 2, "tokens": 96, "sequence": _EXAMPLE_WORDS},
    traced_sizes={"batch": 2, "tokens": 77, "sequence": 13},
    example={
        "timestep": example_timestep,
        **table_examples(_example_table),
    },
)

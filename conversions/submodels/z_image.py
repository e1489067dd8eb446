"""Z-Image's denoiser, ``ZImageTransformer2DModel``, on packed latents and with its positions as inputs."""

from __future__ import annotations

from functools import partial
from math import isqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conversions.graph_kind import Config, GraphKind, TensorSpec
from conversions.recipe import Floats
from conversions.submodels import config_fields
from conversions.submodels.library_class import diffusers_class, diffusers_component
from conversions.submodels.rotary import example_timestep, rotary_angles, table_examples, table_inputs

# Source: the signature of diffusers 0.42's ZImageTransformer2DModel; a test compares.
DEFAULTS: Config = {
    "all_patch_size": [2],
    "all_f_patch_size": [1],
    "in_channels": 16,
    "dim": 3840,
    "n_layers": 30,
    "n_refiner_layers": 2,
    "n_heads": 30,
    "norm_eps": 1e-5,
    "qk_norm": True,
    "cap_feat_dim": 2560,
    "siglip_feat_dim": None,
    "t_scale": 1000.0,
}
# Positions are inputs; the attention has as many keys as queries whatever n_kv_heads says.
IRRELEVANT = frozenset({"axes_dims", "axes_lens", "n_kv_heads", "rope_theta"})

PATCH = 2
"""Side of a patch, in latents."""

MULTIPLE = 32
"""Tokens of images and of texts are filled up to a multiple of this; source: diffusers' SEQ_MULTI_OF."""

AXES_DIMS = (32, 48, 48)
AXES_LENGTHS = (1024, 512, 512)
THETA = 256.0
"""Defaults of the configuration's fields for positions."""

_PLACE = f"{PATCH}-1"
_EXAMPLE_WORDS = 64


def unsupported(config: Config) -> str:
    """Say what of a configuration the graph cannot express; empty where nothing is."""
    for name in ("all_patch_size", "all_f_patch_size"):
        if list(config.get(name) or DEFAULTS[name]) != DEFAULTS[name]:
            return f"The denoiser's {name} is {config[name]}; {DEFAULTS[name]} is supported."
    if config.get("siglip_feat_dim"):
        return "The denoiser reads images beside the prompt (siglip_feat_dim), which is not supported."
    return ""


def _inputs(config: Config) -> tuple[TensorSpec, ...]:
    width = config.get("dim", DEFAULTS["dim"]) // config.get("n_heads", DEFAULTS["n_heads"]) // 2
    patch = PATCH**2 * config.get("in_channels", DEFAULTS["in_channels"])
    text = config.get("cap_feat_dim", DEFAULTS["cap_feat_dim"])
    return (
        TensorSpec(name="hidden_states", dtype="float", shape=("batch", "tokens", patch)),
        TensorSpec(name="encoder_hidden_states", dtype="float", shape=("batch", "sequence", text)),
        TensorSpec(name="timestep", dtype="float32", shape=(1,)),
        TensorSpec(name="image_padding", dtype="float", shape=("tokens", 1)),
        TensorSpec(name="text_padding", dtype="float", shape=("sequence", 1)),
        *table_inputs(width),
    )


def _outputs(config: Config) -> tuple[TensorSpec, ...]:
    patch = PATCH**2 * config.get("in_channels", DEFAULTS["in_channels"])
    return (TensorSpec(name="out_hidden_states", dtype="float", shape=("batch", "tokens", patch)),)


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
            image_padding: torch.Tensor,
            text_padding: torch.Tensor,
            image_rotary_cos: torch.Tensor,
            image_rotary_sin: torch.Tensor,
            text_rotary_cos: torch.Tensor,
            text_rotary_sin: torch.Tensor,
        ) -> torch.Tensor:
            """Refine image and text alone, then both together, image first."""
            model = self.model
            image_positions = (image_rotary_cos, image_rotary_sin)
            text_positions = (text_rotary_cos, text_rotary_sin)
            time = model.t_embedder(timestep * model.t_scale)
            image = model.all_x_embedder[_PLACE](hidden_states)
            image = image * (1 - image_padding) + model.x_pad_token * image_padding
            for layer in model.noise_refiner:
                image = layer(image, None, image_positions, time)
            text = model.cap_embedder(encoder_hidden_states)
            text = text * (1 - text_padding) + model.cap_pad_token * text_padding
            for layer in model.context_refiner:
                text = layer(text, None, text_positions)
            length = image.shape[1]
            both = torch.cat([image, text], 1)
            positions = tuple(torch.cat(each) for each in zip(image_positions, text_positions, strict=True))
            for layer in model.layers:
                both = layer(both, None, positions, time)
            predicted: torch.Tensor = model.all_final_layer[_PLACE](both[:, :length], c=time)
            return predicted * (1 - image_padding)

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
            image_padding: torch.Tensor,
            text_padding: torch.Tensor,
            image_rotary_cos: torch.Tensor,
            image_rotary_sin: torch.Tensor,
            text_rotary_cos: torch.Tensor,
            text_rotary_sin: torch.Tensor,
        ) -> torch.Tensor:
            """Unpack, run diffusers' own forward, which works out positions by itself, and pack again."""
            del image_rotary_sin, text_rotary_cos, text_rotary_sin
            tokens = int((1 - image_padding).sum())
            words = int((1 - text_padding).sum())
            # The angle of a token's row is that of its neighbour until the row ends.
            row = image_rotary_cos[:tokens, self.model.axes_dims[0] // 2]
            width = int((row == row[0]).int().cumprod(0).sum())
            grid = hidden_states[:, :tokens].unflatten(2, (PATCH, PATCH, -1)).unflatten(1, (-1, width))
            latents = torch.einsum("nhwpqc->nchpwq", grid).flatten(4).flatten(2, 3)
            predicted = self.model(
                list(latents.unsqueeze(2)),
                timestep.expand(len(latents)),
                list(encoder_hidden_states[:, :words]),
                return_dict=False,
            )[0]
            image = torch.stack(predicted).squeeze(2)
            patches = image.unflatten(3, (-1, PATCH)).unflatten(2, (-1, PATCH))
            packed = torch.einsum("nchpwq->nhwpqc", patches).flatten(3).flatten(1, 2)
            return torch.nn.functional.pad(packed, (0, 0, 0, hidden_states.shape[1] - tokens))

    return Reference()


def _grid(tokens: int) -> tuple[int, int]:
    """Return rows and columns of an image that is filled up to so many tokens, about as wide as high."""
    width = isqrt(tokens)
    while not 0 < (left := tokens % width) < MULTIPLE:
        width -= 1
    return (tokens - left) // width, width


def _padding_of_image(config: Config, shape: tuple[int, ...], random: Any) -> Any:
    del config, random
    rows, columns = _grid(shape[0])
    return (np.arange(shape[0]) >= rows * columns).astype(np.float32)[:, None]


def _padding_of_text(config: Config, shape: tuple[int, ...], random: Any) -> Any:
    """Pad seven tokens of the text."""
    del config, random
    return (np.arange(shape[0]) >= shape[0] - 7).astype(np.float32)[:, None]


def image_positions(rows: int, columns: int, words: int) -> NDArray[np.int64]:
    """Return the positions of an image's tokens, padding included, ``[tokens, 3]``.

    The first axis counts on from the text; padding stands at the origin.

    Args:
        rows: Of patches.
        columns: Of patches.
        words: Tokens of the text, padding included.

    Source: ``patchify_and_embed`` of diffusers' ZImageTransformer2DModel.
    """
    positions = np.zeros((filled_up(rows * columns), 3), dtype=np.int64)
    grid = np.indices((rows, columns)).reshape(2, -1).T
    positions[: len(grid), 0] = words + 1
    positions[: len(grid), 1:] = grid
    return positions


def text_positions(words: int) -> NDArray[np.int64]:
    """Return the positions of a text's tokens, padding included, ``[tokens, 3]``: they count from one."""
    positions = np.zeros((words, 3), dtype=np.int64)
    positions[:, 0] = np.arange(1, words + 1)
    return positions


def filled_up(tokens: int) -> int:
    """Return the number of tokens with padding."""
    return -(-tokens // MULTIPLE) * MULTIPLE


def rotary_tables(config: Config, positions: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Return cosines and sines of the angles of positions, float32 ``[tokens, size of a head / 2]``."""
    dims = config.get("axes_dims") or AXES_DIMS
    angles = rotary_angles(positions, dims, float(config.get("rope_theta") or THETA)).astype(np.float32)
    return np.cos(angles), np.sin(angles)


def _example_table(part: str, which: int, config: Config, shape: tuple[int, ...], random: Any) -> Any:
    """Make the cosines (0) or sines (1) of the positions of an image or a text.

    An image's positions count on from the text's, which the example of another input decides: 64 tokens.
    """
    del random
    positions = (
        text_positions(shape[0]) if part == "text" else image_positions(*_grid(shape[0]), _EXAMPLE_WORDS)
    )
    return rotary_tables(config, positions)[which]


Z_IMAGE = GraphKind(
    fields=config_fields.Z_IMAGE,
    id="z_image",
    class_name="ZImageTransformer2DModel",
    defaults=DEFAULTS,
    irrelevant=IRRELEVANT,
    inputs=_inputs,
    outputs=_outputs,
    component_class=partial(diffusers_class, "ZImageTransformer2DModel"),
    create=partial(diffusers_component, "ZImageTransformer2DModel"),
    wrap=_wrap,
    reference=_reference,
    quantizable=True,
    # Source: _skip_layerwise_casting_patterns of the class, and the layers at the denoiser's two ends.
    sensitive=(r"^(t_embedder|cap_embedder|all_x_embedder|all_final_layer)\.", r"adaLN_modulation"),
    sizes={"batch": 2, "tokens": 96, "sequence": _EXAMPLE_WORDS},
    traced_sizes={"batch": 2, "tokens": 96, "sequence": 64},
    example={
        "timestep": example_timestep,
        "image_padding": _padding_of_image,
        "text_padding": _padding_of_text,
        **table_examples(_example_table),
    },
)

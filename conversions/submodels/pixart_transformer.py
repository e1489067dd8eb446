"""The denoiser of PixArt, ``PixArtTransformer2DModel``, with its positions as an input.

Source: Chen et al. 2023, arXiv:2310.00426 (PixArt-alpha), and 2024, arXiv:2403.04692 (PixArt-Sigma).
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from conversions.graph_kind import Config, GraphKind, TensorSpec
from conversions.recipe import Floats
from conversions.submodels import config_fields
from conversions.submodels.library_class import diffusers_class, diffusers_component
from conversions.submodels.padding import example_mask
from conversions.submodels.rotary import near_square

# Source: the signature of diffusers 0.42's PixArtTransformer2DModel; a test compares.
DEFAULTS: Config = {
    "num_attention_heads": 16,
    "attention_head_dim": 72,
    "in_channels": 4,
    "out_channels": 8,
    "num_layers": 28,
    "cross_attention_dim": 1152,
    "attention_bias": True,
    "patch_size": 2,
    "activation_fn": "gelu-approximate",
    "norm_type": "ada_norm_single",
    "norm_elementwise_affine": False,
    "norm_eps": 1e-6,
    "use_additional_conditions": None,
    "caption_channels": None,
    "attention_type": "default",
}
# The size that it was trained at shapes the positions alone, and they are an input.
IRRELEVANT = frozenset(
    {
        "dropout",
        "interpolation_scale",
        "norm_num_groups",
        "num_embeds_ada_norm",
        "sample_size",
        "upcast_attention",
    }
)
# Source: PixArtTransformer2DModel.__init__: models of this size are told the image's size where nothing else
# is said.
_SIDE_WITH_CONDITIONS = 128


def value_of(config: Config, name: str) -> Any:
    """Return a field of a configuration, or its default."""
    return config.get(name, DEFAULTS[name])


def width_of(config: Config) -> int:
    """Return the length of a token's state."""
    return int(value_of(config, "num_attention_heads") * value_of(config, "attention_head_dim"))


def side_of(config: Config) -> int:
    """Return the side in latents of the images that a model was trained on."""
    return int(config.get("sample_size") or _SIDE_WITH_CONDITIONS)


def reads_size(config: Config) -> bool:
    """Say whether the denoiser is told the image's size, as PixArt-alpha at 1024 pixels is."""
    given = config.get("use_additional_conditions")
    return side_of(config) == _SIDE_WITH_CONDITIONS if given is None else bool(given)


def unsupported(config: Config) -> str:
    """Say what of a configuration the graph cannot express; empty where nothing is."""
    kind = value_of(config, "attention_type")
    if kind != "default":
        return f"The transformer's attention is of the type {kind}, which this pipeline does not use."
    if config.get("caption_channels") is None:
        return "The transformer projects no caption: it does not belong to this pipeline."
    return ""


def position_table(config: Config, rows: int, columns: int) -> Floats:
    """Return the sines and cosines of the places of an image's patches, ``[rows * columns, width]``."""
    side = side_of(config)
    stretch = config.get("interpolation_scale")
    # Source: PixArtTransformer2DModel.__init__.
    stretch = max(side // 64, 1) if stretch is None else stretch
    base = side // value_of(config, "patch_size")
    return sinusoids(rows, columns, width=width_of(config), base=base, stretch=stretch)


def sinusoids(rows: int, columns: int, *, width: int, base: int, stretch: float) -> Floats:
    """Return the sines and cosines of places in a grid that spans the same range at every size.

    Args:
        rows: Of patches.
        columns: Of patches.
        width: Numbers for each place.
        base: Patches of a side in training.
        stretch: What places are divided by.

    Returns:
        ``[rows * columns, width]``.

    Source: ``get_2d_sincos_pos_embed`` of diffusers; Vaswani et al. 2017, section 3.5, in two dimensions.
    """
    quarter = width // 4
    frequencies = 1.0 / 10000 ** (np.arange(quarter, dtype=np.float64) / quarter)
    down, right = (np.arange(each, dtype=np.float32) / (each / base) / stretch for each in (rows, columns))
    halves = []
    for places in (np.tile(right, rows), np.repeat(down, columns)):
        angles = np.outer(places, frequencies)
        halves += [np.sin(angles), np.cos(angles)]
    return np.concatenate(halves, axis=1).astype(np.float32)


def _relevant(config: Config) -> Config:
    # Published configurations are of diffusers' Transformer2DModel, which has fields of its own.
    known = {name: config[name] for name in DEFAULTS if name in config}
    return {**known, "use_additional_conditions": reads_size(config) or None}


def _image(channels: int) -> tuple[int | str, ...]:
    return "batch", channels, "height", "width"


def _inputs(config: Config) -> tuple[TensorSpec, ...]:
    """Return the inputs, with the names of diffusers.

    Times, places and sizes are float32 whatever the precision: float16 would round them.
    """
    states = ("batch", "sequence", value_of(config, "caption_channels"))
    specs = (
        TensorSpec(name="hidden_states", dtype="float", shape=_image(value_of(config, "in_channels"))),
        TensorSpec(name="encoder_hidden_states", dtype="float", shape=states),
        TensorSpec(name="encoder_attention_mask", dtype="int32", shape=("batch", "sequence")),
        TensorSpec(name="timestep", dtype="float32", shape=(1,)),
        TensorSpec(name="pos_embed", dtype="float32", shape=("tokens", width_of(config))),
    )
    if not reads_size(config):
        return specs
    return (
        *specs,
        TensorSpec(name="resolution", dtype="float32", shape=(1, 2)),
        TensorSpec(name="aspect_ratio", dtype="float32", shape=(1, 1)),
    )


def _outputs(config: Config) -> tuple[TensorSpec, ...]:
    channels = value_of(config, "out_channels") or value_of(config, "in_channels")
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
            encoder_attention_mask: torch.Tensor,
            timestep: torch.Tensor,
            pos_embed: torch.Tensor,
            resolution: torch.Tensor | None = None,
            aspect_ratio: torch.Tensor | None = None,
        ) -> torch.Tensor:
            del pos_embed  # the library's own
            batch = len(hidden_states)
            conditions = {"resolution": resolution, "aspect_ratio": aspect_ratio}
            predicted: torch.Tensor = self.model(
                hidden_states,
                encoder_hidden_states,
                timestep.expand(batch),
                added_cond_kwargs={
                    name: each if each is None else each.expand(batch, -1)
                    for name, each in conditions.items()
                },
                encoder_attention_mask=encoder_attention_mask,
                return_dict=False,
            )[0]
            return predicted

    return Transformer()


def _wrap(component: Any) -> Any:
    """Wrap a transformer in the order of diffusers' forward; time and size are one row for all images."""
    import torch

    from conversions.graphs.export_rewrites import to_tokens
    from conversions.graphs.transformer_rewrites import padding_bias, unpatchify

    class Transformer(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = component

        def forward(
            self,
            hidden_states: torch.Tensor,
            encoder_hidden_states: torch.Tensor,
            encoder_attention_mask: torch.Tensor,
            timestep: torch.Tensor,
            pos_embed: torch.Tensor,
            resolution: torch.Tensor | None = None,
            aspect_ratio: torch.Tensor | None = None,
        ) -> torch.Tensor:
            model = self.model
            image = to_tokens(model.pos_embed.proj(hidden_states)) + pos_embed
            modulation, time = model.adaln_single(
                timestep,
                {"resolution": resolution, "aspect_ratio": aspect_ratio},
                batch_size=1,
                hidden_dtype=image.dtype,
            )
            words = model.caption_projection(encoder_hidden_states)
            bias = padding_bias(encoder_attention_mask, image, model.config.num_attention_heads)
            modulation = modulation.reshape(1, 6, -1)
            for block in model.transformer_blocks:
                parts = (block.scale_shift_table[None] + modulation).chunk(6, dim=1)
                image = self._through(block, image, words, bias, parts)
            shift, scale = (model.scale_shift_table[None] + time[:, None]).chunk(2, dim=1)
            image = model.proj_out(model.norm_out(image) * (1 + scale) + shift)
            return unpatchify(image, hidden_states, model.config.patch_size)

        def _through(
            self,
            block: Any,
            image: torch.Tensor,
            words: torch.Tensor,
            bias: torch.Tensor,
            parts: tuple[torch.Tensor, ...],
        ) -> torch.Tensor:
            shift, scale, gate, ff_shift, ff_scale, ff_gate = parts
            image = image + gate * block.attn1(block.norm1(image) * (1 + scale) + shift)
            image = image + block.attn2(image, encoder_hidden_states=words, attention_mask=bias)
            fed: torch.Tensor = block.ff(block.norm2(image) * (1 + ff_scale) + ff_shift)
            return image + ff_gate * fed

    return Transformer()


def _timestep(config: Config, shape: tuple[int, ...], random: Any) -> Any:
    del config, random
    return np.full(shape, 481.0, np.float32)


def _positions(config: Config, shape: tuple[int, ...], random: Any) -> Any:
    del random
    return position_table(config, *near_square(shape[0]))


def _resolution(config: Config, shape: tuple[int, ...], random: Any) -> Any:
    del config, random
    return np.array([[960.0, 1088.0]], np.float32).reshape(shape)


def _aspect_ratio(config: Config, shape: tuple[int, ...], random: Any) -> Any:
    del config, random
    return np.full(shape, 960.0 / 1088.0, np.float32)


PIXART_TRANSFORMER = GraphKind(
    fields=config_fields.PIXART_TRANSFORMER,
    id="pixart_transformer",
    class_name="PixArtTransformer2DModel",
    # Source: _LEGACY_MODEL_MAPPING of diffusers 0.42; published checkpoints are older than the class.
    also=("Transformer2DModel",),
    defaults=DEFAULTS,
    irrelevant=IRRELEVANT,
    relevant=_relevant,
    inputs=_inputs,
    outputs=_outputs,
    component_class=partial(diffusers_class, "PixArtTransformer2DModel"),
    create=partial(diffusers_component, "PixArtTransformer2DModel"),
    wrap=_wrap,
    reference=_reference,
    # Buffers of older versions of diffusers: positions, which are computed today, and what takes the place of
    # a prompt in training.
    unused=(r"^pos_embed\.pos_embed$", r"^caption_projection\.y_embedding$"),
    quantizable=True,
    # What every layer is modulated by, and the layers at the denoiser's two ends: small.
    sensitive=(r"^(adaln_single|caption_projection|proj_out)\.",),
    sizes={"batch": 2, "height": 16, "width": 24, "sequence": 20, "tokens": 8 * 12},
    # Even, since two latents make a patch; a grid of so many tokens has these sides alone.
    traced_sizes={"batch": 2, "height": 66, "width": 74, "sequence": 13, "tokens": 33 * 37},
    example={
        "timestep": _timestep,
        "encoder_attention_mask": example_mask,
        "pos_embed": _positions,
        "resolution": _resolution,
        "aspect_ratio": _aspect_ratio,
    },
)

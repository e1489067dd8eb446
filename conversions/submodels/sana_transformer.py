"""The denoiser of Sana and Sana-Sprint, ``SanaTransformer2DModel``: linear attention and convolutions.

Source: Xie et al. 2024, arXiv:2410.10629 (Sana); Chen et al. 2025, arXiv:2503.09641 (Sana-Sprint).
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
from conversions.submodels.pixart_transformer import sinusoids
from conversions.submodels.rotary import near_square

# Source: the signature of diffusers 0.42's SanaTransformer2DModel; a test compares.
DEFAULTS: Config = {
    "in_channels": 32,
    "out_channels": 32,
    "num_attention_heads": 70,
    "attention_head_dim": 32,
    "num_layers": 20,
    "num_cross_attention_heads": 20,
    "cross_attention_head_dim": 112,
    "cross_attention_dim": 2240,
    "caption_channels": 2304,
    "mlp_ratio": 2.5,
    "attention_bias": False,
    "patch_size": 1,
    "norm_elementwise_affine": False,
    "norm_eps": 1e-6,
    "interpolation_scale": None,
    "guidance_embeds": False,
    "qk_norm": None,
}
# What the pipelines multiply their inputs by, and the size of training, which shapes the positions alone.
IRRELEVANT = frozenset({"dropout", "guidance_embeds_scale", "sample_size", "timestep_scale"})
_SIDE = 32
_NORMS = (None, "rms_norm_across_heads")


def value_of(config: Config, name: str) -> Any:
    """Return a field of a configuration, or its default."""
    return config.get(name, DEFAULTS[name])


def width_of(config: Config) -> int:
    """Return the length of a token's state."""
    return int(value_of(config, "num_attention_heads") * value_of(config, "attention_head_dim"))


def side_of(config: Config) -> int:
    """Return the side in latents of the images that a model was trained on."""
    return int(config.get("sample_size") or _SIDE)


def reads_positions(config: Config) -> bool:
    """Say whether patches are told where they stand, as in models of 2048 pixels and more."""
    return value_of(config, "interpolation_scale") is not None


def unsupported(config: Config) -> str:
    """Say what of a configuration the graph cannot express; empty where nothing is."""
    norm = value_of(config, "qk_norm")
    if norm not in _NORMS:
        return f"The transformer's qk_norm is {norm}; rms_norm_across_heads and none are supported."
    if value_of(config, "cross_attention_dim") is None:
        return "The transformer attends to no prompt: it does not belong to this pipeline."
    return ""


def position_table(config: Config, rows: int, columns: int) -> Floats:
    """Return the sines and cosines of the places of an image's patches, ``[rows * columns, width]``."""
    base = side_of(config) // value_of(config, "patch_size")
    stretch = float(value_of(config, "interpolation_scale"))
    return sinusoids(rows, columns, width=width_of(config), base=base, stretch=stretch)


def _relevant(config: Config) -> Config:
    # Whether there are positions shapes the graph; how far they reach is in the table.
    return {**config, "interpolation_scale": 1.0 if reads_positions(config) else None}


def _image(channels: int) -> tuple[int | str, ...]:
    return "batch", channels, "height", "width"


def _inputs(config: Config) -> tuple[TensorSpec, ...]:
    """Return the inputs, with the names of diffusers.

    Times, guidance and places are float32 whatever the precision: float16 would round them.
    """
    states = ("batch", "sequence", value_of(config, "caption_channels"))
    specs = [
        TensorSpec(name="hidden_states", dtype="float", shape=_image(value_of(config, "in_channels"))),
        TensorSpec(name="encoder_hidden_states", dtype="float", shape=states),
        TensorSpec(name="encoder_attention_mask", dtype="int32", shape=("batch", "sequence")),
        TensorSpec(name="timestep", dtype="float32", shape=(1,)),
    ]
    if value_of(config, "guidance_embeds"):
        specs.append(TensorSpec(name="guidance", dtype="float32", shape=(1,)))
    if reads_positions(config):
        specs.append(TensorSpec(name="pos_embed", dtype="float32", shape=("tokens", width_of(config))))
    return tuple(specs)


def _outputs(config: Config) -> tuple[TensorSpec, ...]:
    channels = value_of(config, "out_channels") or value_of(config, "in_channels")
    return (TensorSpec(name="out_hidden_states", dtype="float", shape=_image(channels)),)


def _named(config: Config, fifth: Any, sixth: Any) -> dict[str, Any]:
    """Tell the inputs apart that only some models have."""
    names = (spec.name for spec in _inputs(config)[4:])
    return dict(zip(names, (fifth, sixth), strict=False))


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
            fifth: torch.Tensor | None = None,
            sixth: torch.Tensor | None = None,
        ) -> torch.Tensor:
            batch = len(hidden_states)
            # The positions are the library's own.
            guidance = _named(self.model.config, fifth, sixth).get("guidance")
            predicted: torch.Tensor = self.model(
                hidden_states,
                encoder_hidden_states,
                timestep.expand(batch),
                guidance=None if guidance is None else guidance.expand(batch),
                encoder_attention_mask=encoder_attention_mask,
                return_dict=False,
            )[0]
            return predicted

    return Transformer()


def _wrap(component: Any) -> Any:
    """Wrap a transformer in the order of diffusers' forward; time and guidance are one row for all images."""
    import torch

    from conversions.graphs.export_rewrites import to_image, to_tokens
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
            fifth: torch.Tensor | None = None,
            sixth: torch.Tensor | None = None,
        ) -> torch.Tensor:
            model, named = self.model, _named(self.model.config, fifth, sixth)
            patches = model.patch_embed.proj(hidden_states)
            image = to_tokens(patches)
            if "pos_embed" in named:
                image = image + named["pos_embed"]
            given = {"guidance": named["guidance"]} if "guidance" in named else {"batch_size": 1}
            modulation, time = model.time_embed(timestep, hidden_dtype=image.dtype, **given)
            words = model.caption_norm(model.caption_projection(encoder_hidden_states))
            bias = padding_bias(encoder_attention_mask, image, model.config.num_cross_attention_heads)
            modulation = modulation.reshape(1, 6, -1)
            for block in model.transformer_blocks:
                parts = (block.scale_shift_table[None] + modulation).chunk(6, dim=1)
                image = self._through(block, image, patches, words, bias, parts)
            image = model.proj_out(model.norm_out(image, time, model.scale_shift_table))
            return unpatchify(image, hidden_states, model.config.patch_size)

        def _through(
            self,
            block: Any,
            image: torch.Tensor,
            patches: torch.Tensor,
            words: torch.Tensor,
            bias: torch.Tensor,
            parts: tuple[torch.Tensor, ...],
        ) -> torch.Tensor:
            shift, scale, gate, ff_shift, ff_scale, ff_gate = parts
            image = image + gate * block.attn1(block.norm1(image) * (1 + scale) + shift)
            image = image + block.attn2(image, encoder_hidden_states=words, attention_mask=bias)
            fed = block.ff(to_image(block.norm2(image) * (1 + ff_scale) + ff_shift, patches))
            return image + ff_gate * to_tokens(fed)

    return Transformer()


def _timestep(config: Config, shape: tuple[int, ...], random: Any) -> Any:
    """Make a time: from 0 to 1 where guidance is an input, on the training scale elsewhere."""
    del random
    return np.full(shape, 0.481 if value_of(config, "guidance_embeds") else 481.0, np.float32)


def _guidance(config: Config, shape: tuple[int, ...], random: Any) -> Any:
    del config, random
    return np.full(shape, 0.45, np.float32)


def _positions(config: Config, shape: tuple[int, ...], random: Any) -> Any:
    del random
    return position_table(config, *near_square(shape[0]))


SANA_TRANSFORMER = GraphKind(
    fields=config_fields.SANA_TRANSFORMER,
    id="sana_transformer",
    class_name="SanaTransformer2DModel",
    defaults=DEFAULTS,
    irrelevant=IRRELEVANT,
    relevant=_relevant,
    inputs=_inputs,
    outputs=_outputs,
    component_class=partial(diffusers_class, "SanaTransformer2DModel"),
    create=partial(diffusers_component, "SanaTransformer2DModel"),
    wrap=_wrap,
    reference=_reference,
    # A buffer of older versions of diffusers: positions, which are computed today.
    unused=(r"^patch_embed\.pos_embed$",),
    quantizable=True,
    # What every layer is modulated by, and the layers at the denoiser's two ends: small.
    sensitive=(r"^(time_embed|caption_projection|proj_out)\.",),
    sizes={"batch": 2, "height": 8, "width": 12, "sequence": 20, "tokens": 8 * 12},
    # A grid of so many tokens has these sides alone.
    traced_sizes={"batch": 2, "height": 33, "width": 37, "sequence": 13, "tokens": 33 * 37},
    example={
        "timestep": _timestep,
        "guidance": _guidance,
        "encoder_attention_mask": example_mask,
        "pos_embed": _positions,
    },
)

"""The variational autoencoder, ``AutoencoderKL``: images to latents and back, two graphs."""

from __future__ import annotations

from functools import partial
from typing import Any

from conversions.graph_kind import Config, GraphKind, Rename, TensorSpec
from conversions.submodels import config_fields
from conversions.submodels.library_class import diffusers_class, diffusers_component

# Source: the signature of diffusers 0.42's AutoencoderKL; a test compares.
DEFAULTS: Config = {
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ["DownEncoderBlock2D"],
    "up_block_types": ["UpDecoderBlock2D"],
    "block_out_channels": [64],
    "layers_per_block": 1,
    "act_fn": "silu",
    "latent_channels": 4,
    "norm_num_groups": 32,
    "use_quant_conv": True,
    "use_post_quant_conv": True,
    "mid_block_add_attention": True,
}
IRRELEVANT = frozenset(
    {"sample_size", "scaling_factor", "shift_factor", "latents_mean", "latents_std", "force_upcast"}
)

# Before diffusers 0.12 the attention of the VAE had names of its own.
# Source: ModelMixin._convert_deprecated_attention_blocks in diffusers; a test compares the results.
RENAMES = tuple(
    Rename(pattern=rf"(\.attentions\.\d+\.){old}\.", replacement=rf"\1{new}.")
    for old, new in (("query", "to_q"), ("key", "to_k"), ("value", "to_v"), ("proj_attn", "to_out.0"))
)


def _reduction(config: Config) -> int:
    """How many pixels one latent covers in each direction: every block but the last halves."""
    return int(2 ** (len(config.get("block_out_channels", [64])) - 1))


def _image(config: Config, channels: str, *, enlarged: bool) -> tuple[int | str, ...]:
    times = f"{_reduction(config)}*" if enlarged else ""
    return "batch", config.get(channels, 3), f"{times}height", f"{times}width"


def _encoder_inputs(config: Config) -> tuple[TensorSpec, ...]:
    return (TensorSpec(name="sample", dtype="float", shape=_image(config, "in_channels", enlarged=False)),)


def _encoder_outputs(config: Config) -> tuple[TensorSpec, ...]:
    parts = 2 * config.get("latent_channels", 4)
    less = _reduction(config)
    return (
        TensorSpec(
            name="latent_parameters",
            dtype="float",
            shape=("batch", parts, f"height//{less}", f"width//{less}"),
        ),
    )


def decoder_inputs(config: Config) -> tuple[TensorSpec, ...]:
    """Return the latents, as the denoiser's latent space has them."""
    shape = ("batch", config.get("latent_channels", 4), "height", "width")
    return (TensorSpec(name="latent_sample", dtype="float", shape=shape),)


def _decoder_outputs(config: Config) -> tuple[TensorSpec, ...]:
    return (TensorSpec(name="sample", dtype="float", shape=_image(config, "out_channels", enlarged=True)),)


def _wrap_encoder(component: Any) -> Any:
    import torch

    class Encoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = component

        def forward(self, sample: torch.Tensor) -> torch.Tensor:
            """Return mean and log variance, side by side on the channel axis."""
            encoded: torch.Tensor = self.model.encoder(sample)
            quant = self.model.quant_conv
            return encoded if quant is None else quant(encoded)

    return Encoder()


def wrap_decoder(component: Any) -> Any:
    """Return a module that decodes with an autoencoder of diffusers, whichever class it is."""
    import torch

    class Decoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = component

        def forward(self, latent_sample: torch.Tensor) -> torch.Tensor:
            image: torch.Tensor = self.model.decode(latent_sample, return_dict=False)[0]
            return image

    return Decoder()


_TRACED_SIZES = {"batch": 2, "height": 67, "width": 75}

ENCODER = GraphKind(
    fields=config_fields.VAE,
    id="vae_encoder",
    class_name="AutoencoderKL",
    defaults=DEFAULTS,
    irrelevant=IRRELEVANT,
    inputs=_encoder_inputs,
    outputs=_encoder_outputs,
    component_class=partial(diffusers_class, "AutoencoderKL"),
    create=partial(diffusers_component, "AutoencoderKL"),
    wrap=_wrap_encoder,
    renames=RENAMES,
    sizes={"batch": 2, "height": 128, "width": 192},
    traced_sizes=_TRACED_SIZES,
)
DECODER = GraphKind(
    fields=config_fields.VAE,
    id="vae_decoder",
    class_name="AutoencoderKL",
    defaults=DEFAULTS,
    irrelevant=IRRELEVANT,
    inputs=decoder_inputs,
    outputs=_decoder_outputs,
    component_class=partial(diffusers_class, "AutoencoderKL"),
    create=partial(diffusers_component, "AutoencoderKL"),
    wrap=wrap_decoder,
    renames=RENAMES,
    sizes={"batch": 2, "height": 16, "width": 24},
    traced_sizes=_TRACED_SIZES,
)

"""TAESD, the small autoencoder ``AutoencoderTiny``: images to latents and back, two graphs."""

from __future__ import annotations

from functools import partial
from typing import Any

from conversions.graph_kind import Config, GraphKind, TensorSpec
from conversions.submodels import config_fields
from conversions.submodels.library_class import diffusers_class, diffusers_component
from conversions.submodels.vae import decoder_inputs, wrap_decoder

# Source: the signature of diffusers 0.42's AutoencoderTiny; a test compares.
DEFAULTS: Config = {
    "in_channels": 3,
    "out_channels": 3,
    "encoder_block_out_channels": [64, 64, 64, 64],
    "decoder_block_out_channels": [64, 64, 64, 64],
    "act_fn": "relu",
    "upsample_fn": "nearest",
    "latent_channels": 4,
    "upsampling_scaling_factor": 2,
    "num_encoder_blocks": [1, 3, 3, 3],
    "num_decoder_blocks": [3, 3, 3, 1],
}
IRRELEVANT = frozenset(
    {
        "latent_magnitude",
        "latent_shift",
        "force_upcast",
        "scaling_factor",
        "shift_factor",
        "block_out_channels",
    }
)


def _downscale(config: Config) -> int:
    """Return how many pixels one latent covers in each direction: every block but the first halves."""
    return int(
        2 ** (len(config.get("encoder_block_out_channels") or DEFAULTS["encoder_block_out_channels"]) - 1)
    )


def _encoder_inputs(config: Config) -> tuple[TensorSpec, ...]:
    return (
        TensorSpec(
            name="sample", dtype="float", shape=("batch", config.get("in_channels", 3), "height", "width")
        ),
    )


def _encoder_outputs(config: Config) -> tuple[TensorSpec, ...]:
    less = _downscale(config)
    shape = ("batch", config.get("latent_channels", 4), f"height//{less}", f"width//{less}")
    return (TensorSpec(name="latents", dtype="float", shape=shape),)


def _decoder_outputs(config: Config) -> tuple[TensorSpec, ...]:
    times = _downscale(config)
    shape = ("batch", config.get("out_channels", 3), f"{times}*height", f"{times}*width")
    return (TensorSpec(name="sample", dtype="float", shape=shape),)


def _wrap_encoder(component: Any) -> Any:
    import torch

    class Encoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = component

        def forward(self, sample: torch.Tensor) -> torch.Tensor:
            latents: torch.Tensor = self.model.encode(sample, return_dict=False)[0]
            return latents

    return Encoder()


TINY_ENCODER = GraphKind(
    fields=config_fields.TINY_VAE,
    id="tiny_vae_encoder",
    class_name="AutoencoderTiny",
    defaults=DEFAULTS,
    irrelevant=IRRELEVANT,
    inputs=_encoder_inputs,
    outputs=_encoder_outputs,
    component_class=partial(diffusers_class, "AutoencoderTiny"),
    create=partial(diffusers_component, "AutoencoderTiny"),
    wrap=_wrap_encoder,
    sizes={"batch": 2, "height": 96, "width": 144},
    traced_sizes={"batch": 2, "height": 64, "width": 72},
)
TINY_DECODER = GraphKind(
    fields=config_fields.TINY_VAE,
    id="tiny_vae_decoder",
    class_name="AutoencoderTiny",
    defaults=DEFAULTS,
    irrelevant=IRRELEVANT,
    inputs=decoder_inputs,
    outputs=_decoder_outputs,
    component_class=partial(diffusers_class, "AutoencoderTiny"),
    create=partial(diffusers_component, "AutoencoderTiny"),
    wrap=wrap_decoder,
    sizes={"batch": 2, "height": 12, "width": 18},
    traced_sizes={"batch": 2, "height": 67, "width": 75},
)

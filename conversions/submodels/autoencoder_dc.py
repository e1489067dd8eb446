"""The decoder of ``AutoencoderDC``, the deep compression autoencoder of Sana: a latent for 32 by 32 pixels.

Source: Chen et al. 2024, arXiv:2410.10733.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from conversions.graph_kind import Config, GraphKind, TensorSpec
from conversions.submodels import config_fields
from conversions.submodels.library_class import diffusers_class, diffusers_component
from conversions.submodels.vae import decoder_inputs, wrap_decoder

_CHANNELS = [128, 256, 512, 512, 1024, 1024]
_SCALES: list[list[int]] = [[], [], [], [5], [5], [5]]
# Source: the signature of diffusers 0.42's AutoencoderDC; a test compares.
DEFAULTS: Config = {
    "in_channels": 3,
    "latent_channels": 32,
    "attention_head_dim": 32,
    "decoder_block_types": "ResBlock",
    "decoder_block_out_channels": _CHANNELS,
    "decoder_layers_per_block": [3, 3, 3, 3, 3, 3],
    "decoder_qkv_multiscales": _SCALES,
    "upsample_block_type": "pixel_shuffle",
    "decoder_norm_types": "rms_norm",
    "decoder_act_fns": "silu",
    "decoder_in_shortcut": True,
    "decoder_conv_act_fn": "relu",
}
IRRELEVANT = frozenset(
    {
        "downsample_block_type",
        "encoder_block_out_channels",
        "encoder_block_types",
        "encoder_layers_per_block",
        "encoder_out_shortcut",
        "encoder_qkv_multiscales",
        "scaling_factor",
    }
)


def downscale(config: Config) -> int:
    """Return the pixels of an image's side for each latent."""
    blocks = config.get("decoder_block_out_channels") or DEFAULTS["decoder_block_out_channels"]
    return int(2 ** (len(blocks) - 1))


def channels(config: Config) -> int:
    """Return the channels of a latent image."""
    return int(config.get("latent_channels", DEFAULTS["latent_channels"]))


def _inputs(config: Config) -> tuple[TensorSpec, ...]:
    return decoder_inputs({"latent_channels": channels(config)})


def _outputs(config: Config) -> tuple[TensorSpec, ...]:
    times = downscale(config)
    colours = config.get("in_channels", DEFAULTS["in_channels"])
    shape = ("batch", colours, f"{times}*height", f"{times}*width")
    return (TensorSpec(name="sample", dtype="float", shape=shape),)


def _relevant(config: Config) -> dict[str, Any]:
    return {name: config[name] for name in DEFAULTS if name in config}


DC_DECODER = GraphKind(
    fields=config_fields.AUTOENCODER_DC,
    id="dc_decoder",
    class_name="AutoencoderDC",
    defaults=DEFAULTS,
    irrelevant=IRRELEVANT,
    relevant=_relevant,
    inputs=_inputs,
    outputs=_outputs,
    component_class=partial(diffusers_class, "AutoencoderDC"),
    create=partial(diffusers_component, "AutoencoderDC"),
    wrap=wrap_decoder,
    # The encoder, which text to image does not need.
    unused=(r"^encoder\.",),
    # More latents than an attention head has numbers: with fewer diffusers multiplies in another order.
    sizes={"batch": 2, "height": 8, "width": 12},
    traced_sizes={"batch": 2, "height": 33, "width": 37},
)

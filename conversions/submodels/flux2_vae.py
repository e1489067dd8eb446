"""The decoder of Flux 2's autoencoder, ``AutoencoderKLFlux2``: packed and normalised latents to images."""

from __future__ import annotations

from functools import partial
from typing import Any

from conversions.graph_kind import Config, GraphKind, TensorSpec
from conversions.submodels import config_fields
from conversions.submodels.library_class import diffusers_class, diffusers_component

# Source: the signature of diffusers 0.42's AutoencoderKLFlux2; a test compares.
DEFAULTS: Config = {
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "block_out_channels": [128, 256, 512, 512],
    "decoder_block_out_channels": None,
    "layers_per_block": 2,
    "act_fn": "silu",
    "latent_channels": 32,
    "norm_num_groups": 32,
    "use_quant_conv": True,
    "use_post_quant_conv": True,
    "mid_block_add_attention": True,
    "batch_norm_eps": 1e-4,
    "patch_size": [2, 2],
}
IRRELEVANT = frozenset({"sample_size", "batch_norm_momentum", "force_upcast"})

PATCH = 2
"""Side of a patch, in latents of the autoencoder."""


def unsupported(config: Config) -> str:
    """Say what of a configuration the graph cannot express; empty where nothing is."""
    patch = list(config.get("patch_size") or DEFAULTS["patch_size"])
    return "" if patch == [PATCH, PATCH] else f"The autoencoder's patch_size is {patch}; [2, 2] is supported."


def packed_channels(config: Config) -> int:
    """Return the channels of packed latents."""
    return PATCH**2 * int(config.get("latent_channels", DEFAULTS["latent_channels"]))


def downscale(config: Config) -> int:
    """Return the pixels of an image's side for each packed latent."""
    blocks = config.get("block_out_channels") or DEFAULTS["block_out_channels"]
    return PATCH * int(2 ** (len(blocks) - 1))


def _inputs(config: Config) -> tuple[TensorSpec, ...]:
    shape = ("batch", packed_channels(config), "height", "width")
    return (TensorSpec(name="latent_sample", dtype="float", shape=shape),)


def _outputs(config: Config) -> tuple[TensorSpec, ...]:
    times = downscale(config)
    shape = ("batch", config.get("out_channels", 3), f"{times}*height", f"{times}*width")
    return (TensorSpec(name="sample", dtype="float", shape=shape),)


def _wrap(component: Any) -> Any:
    import torch

    class Decoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = component

        def forward(self, latent_sample: torch.Tensor) -> torch.Tensor:
            """Undo the normalisation of packed latents, unpack and decode them.

            Source: the end of ``__call__`` of diffusers' Flux2KleinPipeline.
            """
            norm = self.model.bn
            deviation = torch.sqrt(norm.running_var + self.model.config.batch_norm_eps)
            latents = latent_sample * deviation[:, None, None] + norm.running_mean[:, None, None]
            latents = torch.nn.functional.pixel_shuffle(latents, PATCH)
            image: torch.Tensor = self.model.decode(latents, return_dict=False)[0]
            return image

    return Decoder()


FLUX2_DECODER = GraphKind(
    fields=config_fields.FLUX2_VAE,
    id="flux2_vae_decoder",
    class_name="AutoencoderKLFlux2",
    defaults=DEFAULTS,
    irrelevant=IRRELEVANT,
    inputs=_inputs,
    outputs=_outputs,
    component_class=partial(diffusers_class, "AutoencoderKLFlux2"),
    create=partial(diffusers_component, "AutoencoderKLFlux2"),
    wrap=_wrap,
    # The encoder, which text to image does not need, and a counter of the normalisation.
    unused=(r"^(encoder|quant_conv)\.", r"^bn\.num_batches_tracked$"),
    sizes={"batch": 2, "height": 8, "width": 12},
    traced_sizes={"batch": 2, "height": 33, "width": 37},
)

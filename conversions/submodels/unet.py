"""The denoising U-Net of latent diffusion: ``UNet2DConditionModel``."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from conversions.errors import ConversionError
from conversions.graph_kind import Config, GraphKind, TensorSpec
from conversions.submodels import config_fields
from conversions.submodels.library_class import diffusers_class, diffusers_component

# Source: the signature of diffusers 0.42's UNet2DConditionModel; a test compares.
DEFAULTS: Config = {
    "in_channels": 4,
    "out_channels": 4,
    "center_input_sample": False,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "down_block_types": [
        "CrossAttnDownBlock2D",
        "CrossAttnDownBlock2D",
        "CrossAttnDownBlock2D",
        "DownBlock2D",
    ],
    "mid_block_type": "UNetMidBlock2DCrossAttn",
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
    "only_cross_attention": False,
    "block_out_channels": [320, 640, 1280, 1280],
    "layers_per_block": 2,
    "downsample_padding": 1,
    "mid_block_scale_factor": 1,
    "act_fn": "silu",
    "norm_num_groups": 32,
    "norm_eps": 1e-5,
    "cross_attention_dim": 1280,
    "transformer_layers_per_block": 1,
    "reverse_transformer_layers_per_block": None,
    "encoder_hid_dim": None,
    "encoder_hid_dim_type": None,
    "attention_head_dim": 8,
    "num_attention_heads": None,
    "dual_cross_attention": False,
    "use_linear_projection": False,
    "class_embed_type": None,
    "addition_embed_type": None,
    "addition_time_embed_dim": None,
    "num_class_embeds": None,
    "resnet_time_scale_shift": "default",
    "resnet_skip_time_act": False,
    "resnet_out_scale_factor": 1.0,
    "time_embedding_type": "positional",
    "time_embedding_dim": None,
    "time_embedding_act_fn": None,
    "timestep_post_act": None,
    "time_cond_proj_dim": None,
    "conv_in_kernel": 3,
    "conv_out_kernel": 3,
    "projection_class_embeddings_input_dim": None,
    "attention_type": "default",
    "class_embeddings_concat": False,
    "mid_block_only_cross_attention": None,
    "cross_attention_norm": None,
    "addition_embed_type_num_heads": 64,
}


# What SDXL is told of an image: its original size, where it was cropped, the wanted size. The refiner:
# original size, crop, aesthetic score. Source: ``_get_add_time_ids`` of diffusers' pipelines.
_TIME_IDS = 6
_REFINER_TIME_IDS = 5


def _inputs(config: Config) -> tuple[TensorSpec, ...]:
    return _inputs_with(config, _TIME_IDS)


def _refiner_inputs(config: Config) -> tuple[TensorSpec, ...]:
    return _inputs_with(config, _REFINER_TIME_IDS)


def _inputs_with(config: Config, time_ids: int) -> tuple[TensorSpec, ...]:
    specs = [
        TensorSpec(
            name="sample", dtype="float", shape=("batch", config.get("in_channels", 4), "height", "width")
        ),
        TensorSpec(name="timestep", dtype="float32", shape=(1,)),
        TensorSpec(
            name="encoder_hidden_states",
            dtype="float",
            shape=("batch", "sequence", config.get("cross_attention_dim", 1280)),
        ),
    ]
    if config.get("addition_embed_type") == "text_time":
        conditions = config.get("projection_class_embeddings_input_dim") or 0
        width = config.get("addition_time_embed_dim") or 0
        pooled = conditions - time_ids * width
        if width == 0 or pooled <= 0:
            raise ConversionError(
                "config.invalid",
                f"The U-Net's config.json says addition_time_embed_dim = {width} and "
                f"projection_class_embeddings_input_dim = {conditions}; that leaves no room for the prompt's "
                f"pooled state beside {time_ids} conditions on size.",
                "Correct these fields, or download the file again.",
            )
        specs += [
            TensorSpec(name="text_embeds", dtype="float", shape=("batch", pooled)),
            TensorSpec(name="time_ids", dtype="float", shape=("batch", time_ids)),
        ]
    if config.get("time_cond_proj_dim"):
        specs.append(
            TensorSpec(name="timestep_cond", dtype="float", shape=("batch", config["time_cond_proj_dim"]))
        )
    return tuple(specs)


def _outputs(config: Config) -> tuple[TensorSpec, ...]:
    shape = ("batch", config.get("out_channels", 4), "height", "width")
    return (TensorSpec(name="out_sample", dtype="float", shape=shape),)


def _wrap(component: Any) -> Any:
    import torch

    class UNet(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = component

        def forward(
            self,
            sample: torch.Tensor,
            timestep: torch.Tensor,
            encoder_hidden_states: torch.Tensor,
            first: torch.Tensor | None = None,
            second: torch.Tensor | None = None,
            third: torch.Tensor | None = None,
        ) -> torch.Tensor:
            """Run the U-Net; what follows the states is what its configuration asks for, in that order."""
            rest = [condition for condition in (first, second, third) if condition is not None]
            guidance = rest.pop() if self.model.config.time_cond_proj_dim else None
            added = {"text_embeds": rest[0], "time_ids": rest[1]} if rest else None
            predicted: torch.Tensor = self.model(
                sample,
                timestep,
                encoder_hidden_states,
                timestep_cond=guidance,
                added_cond_kwargs=added,
                return_dict=False,
            )[0]
            return predicted

    return UNet()


def _timestep(config: Config, shape: tuple[int, ...], random: Any) -> Any:
    import numpy

    del config, random
    return numpy.full(shape, 481.0, numpy.float32)


def _time_ids(config: Config, shape: tuple[int, ...], random: Any) -> Any:
    import numpy

    del config, random
    known = [1024, 1024, 0, 0, 1024, 1024] if shape[1] == _TIME_IDS else [1024, 1024, 0, 0, 6.0]
    return numpy.tile(numpy.array(known, numpy.float32), (shape[0], 1))


UNET = GraphKind(
    fields=config_fields.UNET,
    id="unet",
    class_name="UNet2DConditionModel",
    defaults=DEFAULTS,
    irrelevant=frozenset({"sample_size", "dropout", "upcast_attention"}),
    inputs=_inputs,
    outputs=_outputs,
    component_class=partial(diffusers_class, "UNet2DConditionModel"),
    create=partial(diffusers_component, "UNet2DConditionModel"),
    wrap=_wrap,
    quantizable=True,
    # What depends on the time alone: small, and every layer adds it.
    sensitive=(r"^time_embedding\.", r"^add_embedding\.", r"\.time_emb_proj\."),
    sizes={"batch": 2, "height": 24, "width": 32, "sequence": 77},
    # Odd on purpose: the U-Net then traces the path that fits each upsampled image to its skip connection,
    # which is right for every size.
    traced_sizes={"batch": 2, "height": 67, "width": 75, "sequence": 13},
    example={"timestep": _timestep, "time_ids": _time_ids},
)
UNET_REFINER = replace(UNET, variant="refiner", inputs=_refiner_inputs)
"""The refiner of SDXL: it is told an aesthetic score instead of a wanted size."""

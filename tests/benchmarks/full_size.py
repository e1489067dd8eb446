"""Checkpoints of true size with random weights: what a real one costs, without a real one.

Run as ``python -m tests.benchmarks.full_size FOLDER [sd14|sdxl|sd3.5|z-image|klein] [--single-file]``,
which also writes FOLDER.safetensors, the same weights in the original naming. The configurations are those of
CompVis/stable-diffusion-v1-4, SDXL base, stabilityai/stable-diffusion-3.5-medium, Tongyi-MAI/Z-Image-Turbo
and black-forest-labs/FLUX.2-klein-4B; the weights come from a fixed seed, scaled so that signals neither grow
nor die, in float32 (SD 1.4, 5.5 GB), float16 (SDXL, 6.9 GB) or bfloat16 (SD 3.5, 16 GB, Z-Image, 20.5 GB,
and klein, 16 GB). ``--only COMPONENT[,COMPONENT]`` makes these components of the last three of true size and
the others tiny, where the disk is too small for all.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np

from conversions.families import (
    flux2_klein,
    stable_diffusion,
    stable_diffusion_3,
    stable_diffusion_xl,
    z_image,
)
from conversions.graph_kind import Config, GraphKind
from conversions.submodels.clip_text import CLIP_TEXT, CLIP_TEXT_LAYERS, CLIP_TEXT_PROJECTED
from conversions.submodels.flux2 import FLUX2
from conversions.submodels.flux2_vae import FLUX2_DECODER
from conversions.submodels.qwen3 import QWEN3_LAST_BUT_ONE, QWEN3_THREE_LAYERS
from conversions.submodels.safety_checker import SAFETY_CHECKER
from conversions.submodels.sd3_transformer import SD3_TRANSFORMER
from conversions.submodels.t5_encoder import T5_ENCODER
from conversions.submodels.unet import UNET
from conversions.submodels.vae import DECODER
from conversions.submodels.z_image import Z_IMAGE
from tests.checkpoints import INDEX, PREPROCESSOR, SCHEDULER, VARIANTS, make_variant
from tests.sdsetup.imaging import clip_vocabulary
from tests.single_files import write_single_file

# What numpy has for bfloat16: its bits.
_BFLOAT16 = np.dtype(np.uint16)
# Numbers drawn for one tensor; a larger one repeats them.
_DRAWN = 2**22
_FILES = {
    "text_encoder": "model.safetensors",
    "text_encoder_2": "model.safetensors",
    "text_encoder_3": "model.safetensors",
    "safety_checker": "model.safetensors",
    "transformer": "diffusion_pytorch_model.safetensors",
    "unet": "diffusion_pytorch_model.safetensors",
    "vae": "diffusion_pytorch_model.safetensors",
}
_SDXL_INDEX = {
    "_class_name": "StableDiffusionXLPipeline",
    "_diffusers_version": "0.19.0.dev0",
    "force_zeros_for_empty_prompt": True,
    "scheduler": ["diffusers", "EulerDiscreteScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "tokenizer_2": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}
_SDXL_SCHEDULER = {
    "_class_name": "EulerDiscreteScheduler",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "interpolation_type": "linear",
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "sample_max_value": 1.0,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "timestep_spacing": "leading",
    "use_karras_sigmas": False,
}


def make_sd14(folder: Path) -> Path:
    """Write a whole SD 1.4 in float32, 5.5 GB."""
    for component, kind, config in (
        ("text_encoder", CLIP_TEXT, stable_diffusion.SD1_TEXT),
        ("unet", UNET, {**stable_diffusion.SD1_UNET, "sample_size": 64}),
        ("vae", DECODER, {**stable_diffusion.VAE, "sample_size": 512}),
        ("safety_checker", SAFETY_CHECKER, stable_diffusion.SD1_SAFETY_CHECKER),
    ):
        _write_component(folder / component, kind, config, np.dtype(np.float32))
    clip_vocabulary.write(folder / "tokenizer", config={"model_max_length": 77})
    _write_json(folder / "scheduler" / "scheduler_config.json", SCHEDULER)
    _write_json(
        folder / "feature_extractor" / "preprocessor_config.json",
        {**PREPROCESSOR, "size": 224, "crop_size": 224},
    )
    _write_json(folder / "model_index.json", INDEX)
    return folder


def make_sdxl(folder: Path) -> Path:
    """Write a whole SDXL base in float16, 6.9 GB."""
    for component, kind, config in (
        ("text_encoder", CLIP_TEXT_LAYERS, stable_diffusion_xl.SDXL_TEXT),
        ("text_encoder_2", CLIP_TEXT_PROJECTED, stable_diffusion_xl.SDXL_TEXT_2),
        ("unet", UNET, {**stable_diffusion_xl.SDXL_UNET, "sample_size": 128}),
        ("vae", DECODER, {**stable_diffusion.VAE, "sample_size": 1024, "scaling_factor": 0.13025}),
    ):
        _write_component(folder / component, kind, config, np.dtype(np.float16))
    for tokenizer in ("tokenizer", "tokenizer_2"):
        clip_vocabulary.write(folder / tokenizer, config={"model_max_length": 77})
    _write_json(folder / "scheduler" / "scheduler_config.json", _SDXL_SCHEDULER)
    _write_json(folder / "model_index.json", _SDXL_INDEX)
    return folder


_FLOW: dict[str, tuple[str, dict[str, tuple[GraphKind, Config]]]] = {
    "sd3.5": (
        "stable-diffusion-3",
        {
            "text_encoder": (CLIP_TEXT_PROJECTED, {**stable_diffusion_xl.SDXL_TEXT, "projection_dim": 768}),
            "text_encoder_2": (CLIP_TEXT_PROJECTED, stable_diffusion_xl.SDXL_TEXT_2),
            "text_encoder_3": (T5_ENCODER, stable_diffusion_3.T5_XXL),
            "transformer": (SD3_TRANSFORMER, stable_diffusion_3.SD35_MEDIUM),
            "vae": (DECODER, {**z_image.VAE, "scaling_factor": 1.5305, "shift_factor": 0.0609}),
        },
    ),
    "z-image": (
        "z-image turbo",
        {
            "text_encoder": (QWEN3_LAST_BUT_ONE, z_image.QWEN3_4B),
            "transformer": (Z_IMAGE, {"axes_dims": [32, 48, 48], "axes_lens": [1536, 512, 512]}),
            "vae": (DECODER, {**z_image.VAE, "scaling_factor": 0.3611, "shift_factor": 0.1159}),
        },
    ),
    "klein": (
        "flux2-klein",
        {
            "text_encoder": (QWEN3_THREE_LAYERS, z_image.QWEN3_4B),
            "transformer": (FLUX2, flux2_klein.KLEIN_4B),
            "vae": (FLUX2_DECODER, {}),
        },
    ),
}
"""Flow-matching models: the tiny checkpoint of their kind, and the components of true size."""

_FITTING: dict[str, dict[str, Config]] = {
    "sd3.5": {
        "text_encoder": {"projection_dim": 768},
        "text_encoder_2": {"projection_dim": 1280},
        "text_encoder_3": {"d_model": 4096},
        "transformer": {"joint_attention_dim": 4096, "pooled_projection_dim": 2048},
    },
}
"""What a tiny component must have of a true one to fit beside it: components that do not fit are refused."""


def make_flow(folder: Path, name: str, only: str = "") -> Path:
    """Write a flow-matching checkpoint in bfloat16: whole, or with some components of true size."""
    variant, components = _FLOW[name]
    make_variant(folder, VARIANTS[variant])
    for component, (kind, config) in components.items():
        if only and component not in only.split(","):
            if component not in _FITTING.get(name, {}):
                continue
            tiny = json.loads((folder / component / "config.json").read_text("utf-8"))
            config = {**tiny, **_FITTING[name][component]}
        shutil.rmtree(folder / component)
        _write_component(folder / component, kind, config, _BFLOAT16)
    return folder


def _write_component(home: Path, kind: GraphKind, config: Config, dtype: np.dtype[Any]) -> None:
    import torch

    with torch.device("meta"):
        component = kind.create(config)
    # A weight of several names, as T5's table, is stored once, under its first.
    names = {id(value): name for name, value in reversed(component.state_dict(keep_vars=True).items())}
    shapes = {
        name: tuple(value.shape)
        for name, value in component.state_dict(keep_vars=True).items()
        if names[id(value)] == name
    }
    home.mkdir(parents=True)
    nested = kind is SAFETY_CHECKER
    _write_json(home / "config.json", config if nested else {**kind.defaults, **config})
    table, end = {}, 0
    for name, shape in shapes.items():
        size = math.prod(shape) * dtype.itemsize
        stored = {np.dtype(np.float32): "F32", np.dtype(np.float16): "F16", _BFLOAT16: "BF16"}[dtype]
        table[name] = {"dtype": stored, "shape": shape, "data_offsets": [end, end + size]}
        end += size
    header = json.dumps(table).encode()
    header += b" " * (-len(header) % 8)
    random = np.random.default_rng(14)
    with (home / _FILES[home.name]).open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        for name, shape in shapes.items():
            weights = _weights(name, shape, random)
            if dtype is _BFLOAT16:
                weights = (weights.view(np.uint32) >> 16).astype(_BFLOAT16)
            file.write(weights.astype(dtype).tobytes())


def _weights(name: str, shape: tuple[int, ...], random: np.random.Generator) -> np.ndarray[Any, Any]:
    """Norms scale by one, biases are zero, the rest is noise divided by the root of its inputs' number.

    A batch norm's statistics are those of unit normal numbers. A layer that computes a norm's scale is noise.
    """
    if "running_" in name:
        return np.full(shape, float(name.endswith("var")), np.float32)
    if "norm" in name and len(shape) == 1:
        return np.full(shape, float(name.endswith("weight")), np.float32)
    if name.endswith("bias"):
        return np.zeros(shape, np.float32)
    fan_in = math.prod(shape[1:]) if len(shape) > 1 else 1
    scale = 0.02 if "embed" in name or "shared" in name else 0.7 / math.sqrt(fan_in)
    if name.endswith("SelfAttention.q.weight"):
        # T5 does not divide scores by the root of a head's size, 64: its queries begin that much smaller.
        scale /= 8
    count = math.prod(shape)
    noise = random.standard_normal(min(count, _DRAWN), np.float32) * np.float32(scale)
    return np.resize(noise, shape)


def _write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(dict(content), indent=2), encoding="utf-8")


def main() -> None:
    """Write what was asked for, unless it is there."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.full_size", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("model", nargs="?", default="sd14", choices=("sd14", "sdxl", *_FLOW))
    parser.add_argument("--only", default="", metavar="COMPONENT[,COMPONENT]")
    parser.add_argument("--single-file", action="store_true")
    options = parser.parse_args()
    home: Path = options.folder
    if not (home / "model_index.json").exists():
        if options.model in _FLOW:
            make_flow(home, options.model, options.only)
        else:
            {"sd14": make_sd14, "sdxl": make_sdxl}[options.model](home)
    print(home)
    if options.single_file:
        print(write_single_file(home, home.with_suffix(".safetensors")))


if __name__ == "__main__":
    main()

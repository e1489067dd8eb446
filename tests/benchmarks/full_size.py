"""Checkpoints of true size with random weights: what a real one costs, without a real one.

Run as ``python -m tests.benchmarks.full_size FOLDER [sd14|sdxl-unet]``. The configurations are those of
CompVis/stable-diffusion-v1-4 and of SDXL base's U-Net; the weights come from a fixed seed, scaled so that
signals neither grow nor die, in float32 (SD 1.4, 5.5 GB) or float16 (SDXL's U-Net, 5.1 GB).
"""

from __future__ import annotations

import json
import math
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np

from conversions.family import Family
from conversions.graph_kind import Config, GraphKind
from conversions.graphs import architectures
from conversions.submodels.clip_text import CLIP_TEXT
from conversions.submodels.safety_checker import SAFETY_CHECKER
from conversions.submodels.unet import UNET
from conversions.submodels.vae import DECODER
from tests.checkpoints import INDEX, PREPROCESSOR, SCHEDULER
from tests.sdsetup.imaging import clip_vocabulary

SDXL_UNET_ONLY = Family(name="sdxl-unet", pipelines=("SdxlUnet",), submodels=(UNET,))

_FILES = {
    "text_encoder": "model.safetensors",
    "safety_checker": "model.safetensors",
    "unet": "diffusion_pytorch_model.safetensors",
    "vae": "diffusion_pytorch_model.safetensors",
}


def make_sd14(folder: Path) -> Path:
    """Write a whole SD 1.4 in float32."""
    for submodel, config in (
        (CLIP_TEXT, architectures.SD1_TEXT),
        (UNET, {**architectures.SD1_UNET, "sample_size": 64}),
        (DECODER, {**architectures.VAE, "sample_size": 512}),
        (SAFETY_CHECKER, architectures.SD1_SAFETY_CHECKER),
    ):
        _write_component(folder, submodel, config, np.dtype(np.float32))
    clip_vocabulary.write(folder / "tokenizer", config={"model_max_length": 77})
    _write_json(folder / "scheduler" / "scheduler_config.json", SCHEDULER)
    _write_json(
        folder / "feature_extractor" / "preprocessor_config.json",
        {**PREPROCESSOR, "size": 224, "crop_size": 224},
    )
    _write_json(folder / "model_index.json", INDEX)
    return folder


def make_sdxl_unet(folder: Path) -> Path:
    """Write SDXL base's U-Net alone in float16."""
    _write_component(folder, UNET, {**architectures.SDXL_UNET, "sample_size": 128}, np.dtype(np.float16))
    _write_json(folder / "model_index.json", {"_class_name": "SdxlUnet"})
    return folder


def _write_component(folder: Path, submodel: GraphKind, config: Config, dtype: np.dtype[Any]) -> None:
    import torch

    with torch.device("meta"):
        component = submodel.create(config)
    shapes = {name: tuple(value.shape) for name, value in component.state_dict().items()}
    home = folder / submodel.component
    home.mkdir(parents=True)
    _write_json(
        home / "config.json",
        {**submodel.defaults, **config} if submodel.component != "safety_checker" else config,
    )
    table, end = {}, 0
    for name, shape in shapes.items():
        size = math.prod(shape) * dtype.itemsize
        kind = "F32" if dtype.itemsize == 4 else "F16"
        table[name] = {"dtype": kind, "shape": shape, "data_offsets": [end, end + size]}
        end += size
    header = json.dumps(table).encode()
    header += b" " * (-len(header) % 8)
    random = np.random.default_rng(14)
    with (home / _FILES[submodel.component]).open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        for name, shape in shapes.items():
            file.write(_weights(name, shape, random).astype(dtype).tobytes())


def _weights(name: str, shape: tuple[int, ...], random: np.random.Generator) -> np.ndarray[Any, Any]:
    """Norms scale by one, biases are zero, the rest is noise divided by the root of its inputs' number."""
    if "norm" in name:
        return np.full(shape, float(name.endswith("weight")), np.float32)
    if name.endswith("bias"):
        return np.zeros(shape, np.float32)
    fan_in = math.prod(shape[1:]) if len(shape) > 1 else 1
    scale = 0.02 if "embed" in name else 0.7 / math.sqrt(fan_in)
    return random.standard_normal(shape, np.float32) * np.float32(scale)


def _write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(dict(content), indent=2), encoding="utf-8")


if __name__ == "__main__":
    make = make_sdxl_unet if sys.argv[2:] == ["sdxl-unet"] else make_sd14
    print(make(Path(sys.argv[1])))

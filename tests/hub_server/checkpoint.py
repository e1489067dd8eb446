"""Files shaped like a diffusers checkpoint, small, for tests that only move them."""

from __future__ import annotations

import json
import random


def checkpoint_files(unet_bytes: int = 3_000_001, seed: int = 1) -> dict[str, bytes]:
    """Make the files of a repository; the weights are noise."""
    noise = random.Random(seed)
    index = {
        "_class_name": "StableDiffusionPipeline",
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "scheduler": ["diffusers", "PNDMScheduler"],
        "safety_checker": [None, None],
        "requires_safety_checker": False,
    }
    return {
        "README.md": b"# A model\n",
        "model_index.json": json.dumps(index).encode(),
        "unet/config.json": b'{"sample_size": 64}',
        "unet/diffusion_pytorch_model.safetensors": noise.randbytes(unet_bytes),
        "unet/diffusion_pytorch_model.fp16.safetensors": noise.randbytes(unet_bytes // 2),
        "unet/diffusion_pytorch_model.non_ema.safetensors": noise.randbytes(500),
        "unet/diffusion_pytorch_model.bin": noise.randbytes(500),
        "unet/model.onnx": noise.randbytes(500),
        "vae/config.json": b'{"scaling_factor": 0.18215}',
        "vae/diffusion_pytorch_model.safetensors": noise.randbytes(unet_bytes // 3),
        "vae/diffusion_flax_model.msgpack": noise.randbytes(500),
        "tokenizer/vocab.json": b'{"a": 0}',
        "tokenizer/merges.txt": b"#version: 0.2\n",
        "scheduler/scheduler_config.json": b"{}",
        "sd-v1-4.ckpt": noise.randbytes(500),
    }


NEEDED = (
    "model_index.json",
    "unet/config.json",
    "unet/diffusion_pytorch_model.safetensors",
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
    "tokenizer/vocab.json",
    "tokenizer/merges.txt",
    "scheduler/scheduler_config.json",
)

"""Where DirectML runs the published architectures.

Run as ``python -m tests.benchmarks.placement_of_real_models [NAME ...]``. Traces each submodel at its true
configuration without weights, makes the directml graph in float16 and writes one JSON object a submodel and
picture size: nodes, operators, fused graphs, nodes outside, forecast of memory, seconds.
"""

from __future__ import annotations

import json
import platform
import sys
import time
from collections import Counter
from typing import Any

import onnx_ir as ir

from conversions.convert import _adapt
from conversions.forecast import forecast
from conversions.options import Options
from conversions.placement import check_placement, picture_sizes
from conversions.submodels.clip_text import CLIP_TEXT
from conversions.submodels.unet import UNET
from conversions.submodels.vae import DECODER, ENCODER
from conversions.trace import trace

# Source: the config.json files of CompVis/stable-diffusion-v1-4, stabilityai/stable-diffusion-2-1 and
# stabilityai/stable-diffusion-xl-base-1.0; fields left out have diffusers' defaults.
_VAE: dict[str, Any] = {
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
}
_TEXT = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "num_hidden_layers": 12}
_SDXL_UNET = {
    "cross_attention_dim": 2048,
    "attention_head_dim": [5, 10, 20],
    "use_linear_projection": True,
    "block_out_channels": [320, 640, 1280],
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "transformer_layers_per_block": [1, 2, 10],
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
_SD2_UNET = {
    "cross_attention_dim": 1024,
    "attention_head_dim": [5, 10, 20, 20],
    "use_linear_projection": True,
}
MODELS = {
    "sd14-text_encoder": (CLIP_TEXT, _TEXT, (512,)),
    "sd14-unet": (UNET, {"cross_attention_dim": 768, "attention_head_dim": 8}, (512, 768)),
    "sd-vae_encoder": (ENCODER, _VAE, (512, 768, 1024)),
    "sd-vae_decoder": (DECODER, _VAE, (512, 768, 1024)),
    "sd21-unet": (UNET, _SD2_UNET, (512, 768)),
    "sdxl-unet": (UNET, _SDXL_UNET, (512, 1024)),
}


def main(names: list[str]) -> None:
    """Write one line for every model and size."""
    for name in names or MODELS:
        submodel, config, sides = MODELS[name]
        began = time.perf_counter()
        model = trace(submodel, {**submodel.defaults, **config})
        seconds = time.perf_counter() - began
        _adapt(model, submodel, config, Options(precision="fp16", target="directml"))
        for side in sides:
            print(json.dumps(_check(name, submodel.name, model, side) | {"trace_seconds": round(seconds, 1)}))
            sys.stdout.flush()


def _check(name: str, submodel: str, model: ir.Model, side: int) -> dict[str, Any]:
    sizes = picture_sizes(model, width=side, height=side)
    began = time.perf_counter()
    report = check_placement(model, "directml", sizes, submodel=submodel)
    seconds = time.perf_counter() - began
    (need,) = forecast({submodel: model}, width=side, height=side).needs
    return {
        "model": name,
        "side": side,
        "stored_nodes": len(model.graph),
        **report.as_dict(),
        "operators": dict(Counter(node.operator for node in report.nodes).most_common()),
        "weights_bytes": need.weights_bytes,
        "activation_bytes": need.activation_bytes,
        "check_seconds": round(seconds, 2),
        "machine": f"{platform.processor() or platform.machine()}, Python {platform.python_version()}",
    }


if __name__ == "__main__":
    main(sys.argv[1:])

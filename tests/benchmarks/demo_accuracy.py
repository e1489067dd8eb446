"""How often the demo draws what it is asked, on captions of combinations it has never seen.

Run as ``python -m tests.benchmarks.demo_accuracy [CAPTIONS] [fp16|fp32|int8|int4]``. Converts the demo for
the CPU. Makes an image for each caption with ONNX Runtime, and from the same noise with PyTorch in float32.
Judges both, and writes one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from diffusers import StableDiffusionPipeline

from conversions.events import ignore
from conversions.options import Options, Precision
from sdsetup import demo
from sdsetup.checkpoint_source import CheckpointRequest
from sdsetup.demo.judge import judge
from sdsetup.imaging.pipeline import Pipeline
from sdsetup.imaging.request import Request
from sdsetup.runtime.devices import choose_device, list_devices
from sdsetup.runtime.package import open_for_images
from sdsetup.runtime.runner import LocalRunner
from sdsetup.workflow import ConvertRequest, convert_model
from tests.demo_training.examine import KIND_NAMES
from tests.demo_training.world import captions, sample

_STEPS = 20


class TorchRunner(LocalRunner):
    """Answers as the package's submodels do, with PyTorch in float32."""

    @cached_property
    def models(self) -> StableDiffusionPipeline:
        """The checkpoint as diffusers loads it."""
        return StableDiffusionPipeline.from_pretrained(demo.checkpoint_path(), torch_dtype=torch.float32)

    @torch.no_grad()
    def run(self, submodel: str, inputs: Mapping[str, Any]) -> dict[str, Any]:
        given = {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in inputs.items()}
        if submodel == "text_encoder":
            hidden = self.models.text_encoder(given["input_ids"].long()).last_hidden_state
            return {"last_hidden_state": hidden.numpy()}
        if submodel == "unet":
            answer = self.models.unet(given["sample"], given["timestep"], given["encoder_hidden_states"])
            return {"out_sample": answer.sample.numpy()}
        return {"sample": self.models.vae.decode(given["latent_sample"]).sample.numpy()}


def measure(count: int, precision: Precision) -> dict[str, Any]:
    """Judge ``count`` images of each runner."""
    scenes = sample(count, seed=4, unseen=True)
    texts = captions(scenes)
    device = choose_device(list_devices(), target="cpu")
    passed, seconds = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        package = open_for_images(_converted(Path(folder) / "demo", precision))
        ours = f"onnx_{precision}"
        for name, kind in ((ours, LocalRunner), ("pytorch_fp32", TorchRunner)):
            pipeline = Pipeline(package=package, runner=kind(package=package, device=device))
            began = time.perf_counter()
            images = [
                pipeline.generate(Request(prompt=text, seed=seed, steps=_STEPS)).pixels[0]
                for seed, text in enumerate(texts)
            ]
            seconds[name] = round((time.perf_counter() - began) / count, 3)
            passed[name] = np.array([judge(*shown).passed for shown in zip(images, texts, strict=True)])
    return {
        "benchmark": "demo_accuracy",
        "captions": count,
        "steps": _STEPS,
        "accuracy": {name: _by_kind(right, scenes.kind) for name, right in passed.items()},
        "verdicts_that_agree": round(float((passed[ours] == passed["pytorch_fp32"]).mean()), 4),
        "seconds_an_image": seconds,
        "machine": {
            "python": platform.python_version(),
            "system": platform.platform(),
            "cores": os.cpu_count(),
            "load": os.getloadavg() if hasattr(os, "getloadavg") else None,
        },
    }


def _converted(folder: Path, precision: Precision) -> Path:
    request = ConvertRequest(
        checkpoint_request=CheckpointRequest(model="demo"),
        options=Options(precision=precision, target="cpu"),
        output=folder,
        verify=False,
    )
    convert_model(request, ignore)
    return folder


def _by_kind(right: np.ndarray, kinds: np.ndarray) -> dict[str, float]:
    shares = {
        name: right[kinds == kind].mean() for kind, name in enumerate(KIND_NAMES) if (kinds == kind).any()
    }
    return {name: round(float(share), 4) for name, share in {"all": right.mean(), **shares}.items()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("captions", type=int, nargs="?", default=200)
    parser.add_argument("precision", choices=get_args(Precision), nargs="?", default="fp16")
    chosen = parser.parse_args()
    print(json.dumps(measure(chosen.captions, chosen.precision), indent=1))

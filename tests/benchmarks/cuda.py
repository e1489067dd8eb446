"""Images a second on an NVIDIA card: this package, PyTorch's diffusers in float16, and optimum-onnx.

Run as ``python -m tests.benchmarks.cuda WORK [--optimum PYTHON] [--rounds 2] [--runs 5]``. WORK needs
12 GB and gets a checkpoint of SD 1.4's true size with random weights, this project's package of it, and
optimum's own export. Every contender makes the same kind of image (512x512, 20 steps of DDIM, guidance 7.5,
float16, no safety checker), each in a process of its own, in turns. PYTHON is the interpreter of an
environment with optimum-onnx and onnxruntime-gpu. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.benchmarks import full_size, process_tree

PROMPT = "a photograph of an astronaut riding a horse"
STEPS = 20

OURS = """
import json, sys, time
from pathlib import Path
from sdsetup.inference import Pipeline, Request
from sdsetup.runtime.package import open_for_images
from sdsetup.runtime.start import DeviceRequest, start, summary
package = open_for_images(Path(sys.argv[1]))
runner = start(package, DeviceRequest(provider="cuda"))
pipeline = Pipeline(package=package, runner=runner)
def draw():
    request = Request(prompt=PROMPT, steps=STEPS, images=IMAGES, scheduler="ddim")
    pipeline.generate(request, check_safety=False)
"""

DIFFUSERS = """
import json, sys, time
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
pipeline = StableDiffusionPipeline.from_pretrained(sys.argv[1], torch_dtype=torch.float16,
                                                   safety_checker=None)
pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
pipeline = pipeline.to("cuda")
pipeline.set_progress_bar_config(disable=True)
def draw():
    pipeline(PROMPT, num_inference_steps=STEPS, num_images_per_prompt=IMAGES, output_type="np",
             width=512, height=512)
"""

OPTIMUM_EXPORT = """
import sys
from optimum.exporters.onnx import main_export
main_export(sys.argv[1], sys.argv[2], task="text-to-image", device="cuda", dtype="fp16", do_validation=False)
"""

OPTIMUM = """
import json, sys, time
from diffusers import DDIMScheduler
from optimum.onnxruntime import ORTStableDiffusionPipeline
pipeline = ORTStableDiffusionPipeline.from_pretrained(sys.argv[1], provider="CUDAExecutionProvider",
                                                      safety_checker=None)
pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
pipeline.set_progress_bar_config(disable=True)
def draw():
    pipeline(PROMPT, num_inference_steps=STEPS, num_images_per_prompt=IMAGES, output_type="np",
             width=512, height=512)
"""

TIMED = """
loaded = time.perf_counter()
draw()
warm = time.perf_counter()
seconds = []
for _ in range(RUNS):
    began = time.perf_counter()
    draw()
    seconds.append((time.perf_counter() - began) / IMAGES)
print(json.dumps({"warm_up_seconds": warm - loaded, "seconds": seconds}))
"""


def measure(work: Path, optimum: str | None, rounds: int, runs: int, images: int) -> dict[str, Any]:
    """Prepare what is missing in ``work`` and time the contenders in turns."""
    checkpoint, package, export = work / "sd14", work / "package", work / "optimum"
    if not (checkpoint / "model_index.json").exists():
        full_size.make_sd14(checkpoint)
    if not (package / "manifest.json").exists():
        _run([sys.executable, "-m", "sdsetup", "convert", str(checkpoint), "--target", "cuda", "--no-verify",
              "--output", str(package)])  # fmt: skip
    contenders = {
        "sdsetup": [sys.executable, "-c", _program(OURS, runs, images), str(package)],
        "diffusers": [sys.executable, "-c", _program(DIFFUSERS, runs, images), str(checkpoint)],
    }
    if optimum is not None:
        if not (export / "model_index.json").exists():
            _run([optimum, "-c", OPTIMUM_EXPORT, str(checkpoint), str(export)])
        contenders["optimum-onnx"] = [optimum, "-c", _program(OPTIMUM, runs, images), str(export)]
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, command in contenders.items():
            try:
                runs[name].append(json.loads(_run(command).splitlines()[-1]))
            except subprocess.CalledProcessError as failed:
                print(f"{name} failed:\n{failed.stderr[-3000:]}", file=sys.stderr)
    pace = {
        name: 1 / statistics.median(second for run in each for second in run["seconds"])
        for name, each in runs.items()
        if each
    }
    return {
        "benchmark": "cuda",
        "images_per_second": pace,
        "sdsetup_over": {name: pace["sdsetup"] / pace[name] for name in pace if "sdsetup" in pace},
        "images": images,
        "runs": runs,
        "card": _card(),
        "machine": process_tree.machine(),
    }


def _program(contender: str, runs: int, images: int) -> str:
    constants = f"PROMPT, STEPS, RUNS, IMAGES = {PROMPT!r}, {STEPS}, {runs}, {images}\n"
    return constants + contender + TIMED


def _run(command: list[str]) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _card() -> str:
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    return _run(query).strip()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("--optimum", help="interpreter of an environment with optimum-onnx")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--images", type=int, default=1, help="images in a batch")
    chosen = parser.parse_args()
    print(
        json.dumps(measure(chosen.work, chosen.optimum, chosen.rounds, chosen.runs, chosen.images), indent=1)
    )

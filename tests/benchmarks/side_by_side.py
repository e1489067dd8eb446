"""Images a second and graphics memory: this package beside diffusers, optimum-onnx and stable-diffusion.cpp.

Run as ``python -m tests.benchmarks.side_by_side WORK [--model sd14|sdxl|klein|z-image]
[--precision fp16|int4] [--provider cuda|webgpu|directml|cpu] [--fp32-decoder] [--check] [--compile]
[--optimum PYTHON] [--stable-diffusion-cpp PYTHON] [--no-diffusers] [--rounds 2] [--runs 5] [--images 1]``.
WORK needs 12 GB (SDXL: 14 GB, and 7 GB more with ``--fp32-decoder``; klein 32 GB, Z-Image 41 GB; 6 or 7 GB
more for stable-diffusion.cpp) and gets a checkpoint of the model's true size with random weights, this
project's package of it, and what others need. Every contender makes the same kind of image (no safety
checker; SD 1.4: 512x512, DDIM, 20 steps, guidance 7.5; SDXL: 1024x1024, Euler, 20 steps, guidance 5; klein
and Z-Image-Turbo: 1024x1024, 4 and 8 steps), each in a process of its own, in turns: this project in float16
or with 4-bit weights, diffusers in float16 or, where that is what the model is published in, bfloat16, on
the CPU in float32. ``--compile`` adds diffusers under torch.compile (reduce-overhead, channels last).
``--fp32-decoder`` lets all decode in float32, as SDXL's own autoencoder needs it. Peaks are of an NVIDIA
card's memory above what was in use before; nobody else may use the card meanwhile.

The PYTHONs are interpreters of environments, one with optimum-onnx and onnxruntime-gpu, one with
cyllama-vulkan: stable-diffusion.cpp on Vulkan with flash attention and float16 weights, with Euler steps.
``--python COMMAND`` is how this project's Python is started where it is another than this one, and
``--seen-as FOLDER`` what WORK is called there: a Windows Python under Wine, see ``tests/windows/card``.
``--check`` instead compares images of 4 steps at 512x512 with diffusers in float32 on the same card, from
the same noise.

Prints one JSON object, and each process's numbers as they come to stderr.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np

from tests.benchmarks import card_memory, full_size, process_tree
from tests.benchmarks.place import Place
from tests.single_files import write_single_file

PROMPT = "a photograph of an astronaut riding a horse"
# Of images before any is timed: PyTorch and ONNX Runtime record a decoder's launches in its second run.
WARM_UPS = 3
CHECKED_STEPS = 4
CHECKED_SIDE = 512


@dataclass(frozen=True, kw_only=True)
class Model:
    """What is drawn with.

    Attributes:
        make: Writes the checkpoint.
        pipeline: diffusers' class; optimum's is called ``ORT`` and the same.
        arguments: What is said when diffusers opens the checkpoint.
        side: Of the images, in pixels.
        guidance: Guidance scale.
        steps: Of an image.
        dtype: What diffusers computes in.
        scheduler: This package's name of the scheduler; None leaves the checkpoint's.
        scheduler_class: diffusers' name of it, or empty.
        scheduler_settings: What diffusers' pipeline puts right in the scheduler that it opens, but not in
            one that takes its place; this package does the same by itself.
    """

    make: Callable[[Path], Path]
    pipeline: str
    side: int
    guidance: float
    arguments: str = ""
    steps: int = 20
    dtype: str = "float16"
    scheduler: str | None = None
    scheduler_class: str = ""
    scheduler_settings: Mapping[str, Any] = field(default_factory=dict)


MODELS = {
    "sd14": Model(
        make=full_size.make_sd14,
        pipeline="StableDiffusionPipeline",
        arguments="safety_checker=None",
        side=512,
        guidance=7.5,
        scheduler="ddim",
        scheduler_class="DDIMScheduler",
        scheduler_settings={"clip_sample": False},
    ),
    "sdxl": Model(
        make=full_size.make_sdxl,
        pipeline="StableDiffusionXLPipeline",
        arguments="add_watermarker=False",
        side=1024,
        guidance=5.0,
        scheduler="euler",
        scheduler_class="EulerDiscreteScheduler",
    ),
    "klein": Model(
        make=partial(full_size.make_flow, name="klein"),
        pipeline="Flux2KleinPipeline",
        side=1024,
        guidance=1.0,
        steps=4,
        dtype="bfloat16",
    ),
    "z-image": Model(
        make=partial(full_size.make_flow, name="z-image"),
        pipeline="ZImagePipeline",
        side=1024,
        guidance=0.0,
        steps=8,
        dtype="bfloat16",
    ),
}

OURS = """
import json, sys, time
from pathlib import Path
from conversions.events import Notice
from conversions.recipe import ImageSize
from sdsetup.imaging.pipeline import Pipeline
from sdsetup.imaging.request import Request, complete
from sdsetup.runtime.package import open_for_images
from sdsetup.runtime.start import DeviceRequest, start, summary
def listen(event):
    if isinstance(event, Notice):
        print(event.text, file=sys.stderr)
class Watched:
    def __init__(self, runner):
        self.runner = runner
    def __getattr__(self, name):
        return getattr(self.runner, name)
    def run(self, submodel, inputs):
        began = time.time()
        outputs = self.runner.run(submodel, inputs)
        stages.append((submodel, began, time.time()))
        return outputs
if __name__ == "__main__":  # processes that it starts import this file
    package = open_for_images(Path(sys.argv[1]))
    device = DeviceRequest(provider=PROVIDER, low_vram=LOW_VRAM)
    stages, runner = [], Watched(start(package, device, ImageSize(width=SIDE, height=SIDE), listen))
    pipeline = Pipeline(package=package, runner=runner, listener=listen)
    request = Request(prompt=PROMPT, steps=STEPS, images=IMAGES, scheduler=SCHEDULER, guidance_scale=GUIDANCE,
                      width=SIDE, height=SIDE)
    def draw():
        return pipeline.generate(request, check_safety=False).pixels
    def notes():
        seconds = {name: used.run_seconds for name, used in runner.usage().items()}
        pairs = zip(stages, stages[1:])
        gaps = sorted(after[1] - before[2] for before, after in pairs if before[0] == after[0])
        steps = sorted(seconds[package.with_role("denoiser")[0]])
        return {"summary": summary(runner), "stages": stages,
                "median_seconds_between_steps": gaps[len(gaps) // 2] if gaps else None,
                "median_step_seconds": steps[len(steps) // 2],
                "last_run_seconds": {name: each[-1] for name, each in seconds.items()}}
"""

CLOSE = """
    runner.close()
"""

OPEN_DIFFUSERS = """
import json, sys, time
import numpy as np
import torch
import diffusers
kind = getattr(diffusers, PIPELINE)
pipeline = kind.from_pretrained(sys.argv[1], torch_dtype=getattr(torch, DTYPE), ARGUMENTS)
if SCHEDULER_CLASS:
    scheduler = getattr(diffusers, SCHEDULER_CLASS)
    pipeline.scheduler = scheduler.from_config(pipeline.scheduler.config, **SCHEDULER_SETTINGS)
pipeline.vae.register_to_config(force_upcast=FP32_DECODER)
pipeline = pipeline.to(DEVICE)
pipeline.set_progress_bar_config(disable=True)
"""

DIFFUSERS = (
    OPEN_DIFFUSERS
    + """
def draw():
    images = pipeline(prompt=PROMPT, num_inference_steps=STEPS, num_images_per_prompt=IMAGES,
                      output_type="np",
                      guidance_scale=GUIDANCE, width=SIDE, height=SIDE).images
    return (images * 255).round()
def notes():
    if DEVICE == "cpu":
        return {}
    return {"peak_allocated_bytes": torch.cuda.max_memory_allocated(),
            "peak_reserved_bytes": torch.cuda.max_memory_reserved()}
"""
)

STABLE_DIFFUSION_CPP = """
import json, sys, time
import numpy as np
from cyllama.sd import SampleMethod, SDContext, SDContextParams, SDType
parameters = SDContextParams()
parameters.model_path = sys.argv[1]
parameters.wtype = SDType.F16
parameters.diffusion_flash_attn = True
context = SDContext(parameters)
def draw():
    images = context.generate(prompt=PROMPT, negative_prompt="", width=SIDE, height=SIDE, seed=0,
                              batch_count=IMAGES, sample_steps=STEPS, cfg_scale=GUIDANCE,
                              sample_method=SampleMethod.EULER)
    return np.stack([image.to_numpy() for image in images])
def notes():
    return {}
"""

COMPILE = """
denoiser = "unet" if hasattr(pipeline, "unet") else "transformer"
module = getattr(pipeline, denoiser).to(memory_format=torch.channels_last)
setattr(pipeline, denoiser, torch.compile(module, mode="reduce-overhead", fullgraph=True))
pipeline.vae.to(memory_format=torch.channels_last)
pipeline.vae.decode = torch.compile(pipeline.vae.decode, mode="reduce-overhead", fullgraph=True)
"""

OPTIMUM_EXPORT = """
import sys
from optimum.exporters.onnx import main_export
main_export(sys.argv[1], sys.argv[2], task="text-to-image", device="cuda", dtype="fp16", do_validation=False)
"""

OPTIMUM = """
import json, sys, time
import diffusers
import optimum.onnxruntime
kind = getattr(optimum.onnxruntime, "ORT" + PIPELINE)
pipeline = kind.from_pretrained(sys.argv[1], provider="CUDAExecutionProvider", ARGUMENTS)
scheduler = getattr(diffusers, SCHEDULER_CLASS)
pipeline.scheduler = scheduler.from_config(pipeline.scheduler.config, **SCHEDULER_SETTINGS)
pipeline.set_progress_bar_config(disable=True)
def draw():
    images = pipeline(prompt=PROMPT, num_inference_steps=STEPS, num_images_per_prompt=IMAGES,
                      output_type="np",
                      guidance_scale=GUIDANCE, width=SIDE, height=SIDE).images
    return (images * 255).round()
def notes():
    return {}
"""

TIMED = """
if __name__ == "__main__":
    loaded = time.perf_counter()
    pixels = draw()
    warm = time.perf_counter()
    for _ in range(WARM_UPS - 1):
        draw()
    seconds = []
    for _ in range(RUNS):
        began = time.perf_counter()
        draw()
        seconds.append((time.perf_counter() - began) / IMAGES)
    print(json.dumps({"warm_up_seconds": warm - loaded, "seconds": seconds,
                      "pixels_mean": float(pixels.mean()), "pixels_std": float(pixels.std()), **notes()}))
"""

CHECKED_OURS = """
import numpy as np
from sdsetup.imaging.latent_noise import LatentNoise
request = complete(request, package)
noise = LatentNoise.of(request.seed, request.images)
start = noise.draw(package.recipe.latents.shape(request.size))
latents, _ = pipeline.denoise(request, pipeline.encode(request), None, start, noise)
pixels = pipeline.decode(latents)
np.savez(sys.argv[2], noise=start, latents=latents, pixels=pixels)
print(json.dumps({"summary": summary(runner)}))
"""

CHECKED_DIFFUSERS = """
torch.backends.cudnn.allow_tf32 = False
noise = torch.from_numpy(np.load(sys.argv[2])["noise"]).to("cuda", getattr(torch, DTYPE))
def draw(output_type):
    return pipeline(prompt=PROMPT, num_inference_steps=STEPS, output_type=output_type,
                    guidance_scale=GUIDANCE,
                    width=SIDE, height=SIDE, latents=noise).images
latents = draw("latent").float().cpu().numpy()
pixels = (draw("np") * 255).round().astype(np.uint8)
np.savez(sys.argv[3], latents=latents, pixels=pixels)
print(json.dumps({}))
"""


@dataclass(frozen=True, kw_only=True)
class Work:
    """What is measured, and where its files are.

    Attributes:
        folder: Of all files.
        name: Of the model.
        fp32_decoder: Whether images are decoded in float32.
        precision: Of this project's package.
        place: Where this project's package runs.
    """

    folder: Path
    name: str
    fp32_decoder: bool
    precision: str
    place: Place

    @property
    def model(self) -> Model:
        """What is drawn with."""
        return MODELS[self.name]

    def checkpoint(self) -> Path:
        """Return the checkpoint, made if it is missing."""
        folder = self.folder / self.name
        if not (folder / "model_index.json").exists():
            self.model.make(folder)
        return folder

    def package(self) -> Path:
        """Return this project's package of the checkpoint, made if it is missing."""
        decoder = "-fp32-decoder" if self.fp32_decoder else ""
        folder = self.folder / f"package-{self.name}-{self.precision}{decoder}"
        if not (folder / "manifest.json").exists():
            kept = ["--keep-fp32", "vae_decoder"] if self.fp32_decoder else []
            # A package for the CPU is the one that every other provider runs.
            provider = self.place.provider
            target = provider if provider in ("directml", "cuda") else "cpu"
            _run([sys.executable, "-m", "sdsetup", "convert", str(self.checkpoint()), "--no-verify",
                  "--target", target, "--precision", self.precision, *kept,
                  "--output", str(folder)])  # fmt: skip
        return folder

    def single_file(self) -> Path:
        """Return the checkpoint as one file in the original naming, made if it is missing."""
        checkpoint = self.checkpoint()
        path = checkpoint.with_suffix(".safetensors")
        return path if path.exists() else write_single_file(checkpoint, path)

    def ours(self, **constants: Any) -> list[str]:
        """Return the command that runs this project's program."""
        path = self.folder / f"program-{uuid4().hex[:8]}.py"
        path.write_text(self.program(OURS + TIMED + CLOSE, **constants), "utf-8")
        return [*self.place.python, self.place.named(path), self.place.named(self.package())]

    def export(self, optimum: str) -> Path:
        """Return optimum's export of the checkpoint, made if it is missing."""
        folder = self.folder / f"optimum-{self.name}"
        if not (folder / "model_index.json").exists():
            _run([optimum, "-c", OPTIMUM_EXPORT, str(self.checkpoint()), str(folder)])
        return folder

    def program(self, contender: str, **constants: Any) -> str:
        """Write a contender's program."""
        model = self.model
        constants = {
            "PROMPT": PROMPT,
            "STEPS": model.steps,
            "WARM_UPS": WARM_UPS,
            "IMAGES": 1,
            "SIDE": model.side,
            "GUIDANCE": model.guidance,
            "SCHEDULER": model.scheduler,
            "SCHEDULER_CLASS": model.scheduler_class,
            "SCHEDULER_SETTINGS": dict(model.scheduler_settings),
            "PIPELINE": model.pipeline,
            "FP32_DECODER": self.fp32_decoder,
            "LOW_VRAM": False,
            "PROVIDER": self.place.provider,
            "DEVICE": "cpu" if self.place.provider == "cpu" else "cuda",
            "DTYPE": "float32" if self.place.provider == "cpu" else model.dtype,
            **constants,
        }
        lines = "".join(f"{name} = {value!r}\n" for name, value in constants.items())
        return lines + contender.replace("ARGUMENTS", model.arguments)


def contenders(work: Work, options: argparse.Namespace) -> dict[str, list[str]]:
    """Prepare what is missing and return the command of each contender."""
    checkpoint = str(work.checkpoint())
    counts = {"RUNS": options.runs, "IMAGES": options.images}
    found = {"sdsetup": work.ours(**counts)}
    if work.place.provider != "cpu":
        low_vram = {**counts, "RUNS": 1, "WARM_UPS": 1, "LOW_VRAM": True}
        found["sdsetup --low-vram"] = work.ours(**low_vram)
    if not options.no_diffusers:
        found["diffusers"] = [sys.executable, "-c", work.program(DIFFUSERS + TIMED, **counts), checkpoint]
    if options.compile:
        program = work.program(DIFFUSERS + COMPILE + TIMED, **counts)
        found["diffusers compiled"] = [sys.executable, "-c", program, checkpoint]
    if options.optimum is not None:
        program = work.program(OPTIMUM + TIMED, **counts)
        found["optimum-onnx"] = [options.optimum, "-c", program, str(work.export(options.optimum))]
    if options.stable_diffusion_cpp is not None:
        program = work.program(STABLE_DIFFUSION_CPP + TIMED, **counts)
        file = str(work.single_file())
        found["stable-diffusion.cpp"] = [options.stable_diffusion_cpp, "-c", program, file]
    return found


def measure(work: Work, commands: dict[str, list[str]], rounds: int, images: int) -> dict[str, Any]:
    """Time the contenders in turns; ``--low-vram`` has one round of one run."""
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in commands}
    for turn in range(rounds):
        for name, command in commands.items():
            if turn and name == "sdsetup --low-vram":
                continue
            try:
                results[name].append(_measured(command))
            except subprocess.CalledProcessError as failed:
                print(f"{name} failed:\n{failed.stderr[-3000:]}", file=sys.stderr)
                continue
            print(name, json.dumps(results[name][-1]), file=sys.stderr, flush=True)
    results = {name: each for name, each in results.items() if each}
    pace = {
        name: 1 / statistics.median(second for result in each for second in result["seconds"])
        for name, each in results.items()
    }
    return {
        "benchmark": "side_by_side",
        "model": work.name,
        "provider": work.place.provider,
        "precision": work.precision,
        "fp32_decoder": work.fp32_decoder,
        "images_per_second": pace,
        "sdsetup_over": {name: pace["sdsetup"] / pace[name] for name in pace if "sdsetup" in pace},
        "peak_vram_gib": {
            name: round(max(peaks) / 2**30, 2)
            for name, each in results.items()
            if (peaks := [result["peak_vram_bytes"] for result in each if result["peak_vram_bytes"]])
        },
        "images": images,
        "runs": results,
        "card": card_memory.card(),
        "machine": process_tree.machine(),
    }


def check(work: Work) -> dict[str, Any]:
    """Compare latents and images with diffusers in float32, and diffusers' own in float16 with the same."""
    checkpoint, package = str(work.checkpoint()), str(work.package())
    ours, exact, half = (str(work.folder / f"check-{name}.npz") for name in ("ours", "fp32", "fp16"))
    small = {"STEPS": CHECKED_STEPS, "SIDE": CHECKED_SIDE}
    reference = OPEN_DIFFUSERS + CHECKED_DIFFUSERS
    said = _run([sys.executable, "-c", work.program(OURS + CHECKED_OURS, **small), package, ours])
    for dtype, place in (("float32", exact), ("float16", half)):
        program = work.program(reference, **small, DTYPE=dtype)
        _run([sys.executable, "-c", program, checkpoint, ours, place])
    with np.load(exact) as wanted:
        compared = {
            name: {
                what: _psnr(wanted[what].astype(np.float64), np.load(place)[what].astype(np.float64))
                for what in ("latents", "pixels")
            }
            for name, place in (("sdsetup", ours), ("diffusers float16", half))
        }
        spread = float(wanted["pixels"].std())
    return {
        "benchmark": "side_by_side --check",
        "model": work.name,
        "fp32_decoder": work.fp32_decoder,
        "psnr_db_to_diffusers_float32": compared,
        "pixels_std": spread,
        **json.loads(said.splitlines()[-1]),
        "card": card_memory.card(),
        "machine": process_tree.machine(),
    }


def _psnr(wanted: np.ndarray[Any, Any], given: np.ndarray[Any, Any]) -> float:
    """Peak signal-to-noise ratio in dB, against the range of what is wanted."""
    if not np.isfinite(given).all():
        return math.nan
    error = float(np.mean((wanted - given) ** 2))
    return 10 * math.log10(float(np.ptp(wanted)) ** 2 / error) if error else math.inf


def _measured(command: list[str]) -> dict[str, Any]:
    """Run a contender; add the peak of the card's memory, and the peak while each submodel ran."""
    with card_memory.watch() as samples:
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    result["peak_vram_bytes"] = max((used for _, used in samples), default=None)
    peaks: dict[str, int] = {}
    for submodel, began, ended in result.pop("stages", ()):
        held = [used for moment, used in samples if began <= moment <= ended]
        peaks[submodel] = max(peaks.get(submodel, 0), *held, 0)
    if peaks:
        result["peak_vram_while"] = peaks
    notices = [line for line in done.stderr.splitlines() if "float32" in line]
    return {**result, "notices": notices} if notices else result


def _run(command: list[str]) -> str:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        print(done.stderr[-3000:], file=sys.stderr)
        done.check_returncode()
    return done.stdout


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.side_by_side", description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("--model", choices=sorted(MODELS), default="sd14")
    parser.add_argument("--precision", choices=["fp16", "int4"], default="fp16")
    Place.add_options(parser, provider="cuda")
    parser.add_argument("--fp32-decoder", action="store_true", help="decode in float32; SDXL alone")
    parser.add_argument("--check", action="store_true", help="compare images instead of timing them")
    parser.add_argument("--compile", action="store_true", help="time diffusers under torch.compile too")
    parser.add_argument("--optimum", metavar="PYTHON")
    parser.add_argument("--stable-diffusion-cpp", metavar="PYTHON")
    parser.add_argument("--no-diffusers", action="store_true", help="leave diffusers out")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--images", type=int, default=1, help="images in a batch")
    options = parser.parse_args()
    if options.fp32_decoder and options.model != "sdxl":
        parser.error("--fp32-decoder is for SDXL: diffusers decodes no other model in float32 by itself")
    if options.check and MODELS[options.model].dtype != "float16":
        parser.error("--check is for models of which float16 is the usual type: sd14 and sdxl")
    work = Work(
        folder=options.work,
        name=options.model,
        fp32_decoder=options.fp32_decoder,
        precision=options.precision,
        place=Place.of(options),
    )
    if options.check:
        done = check(work)
    else:
        done = measure(work, contenders(work, options), options.rounds, options.images)
    print(json.dumps(done, indent=1))


if __name__ == "__main__":
    main()

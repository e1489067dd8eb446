"""A package's U-Net on the CPU in three runtimes: ONNX Runtime, OpenVINO's own, and PyTorch eager.

Run as ``python -m tests.benchmarks.unet_runtimes CHECKPOINT PACKAGE [SIDE]``. ONNX Runtime opens the
package's U-Net as ``sdsetup generate`` does, OpenVINO the same graph, PyTorch the checkpoint that the package
was made of. Each runs in a process of its own, in turns, with 2 threads, on the same random inputs of both
prompts for an image of SIDE pixels (512): seconds to load, best and median seconds of a forward, the
process's peak of resident memory, and agreement with PyTorch. OpenVINO is measured where its ``openvino`` can
be imported. Writes one JSON object.
"""

from __future__ import annotations

import importlib.util
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from conversions.package.layout import Package, open_package
from conversions.providers import onnx_session
from conversions.providers.devices import CPU
from conversions.providers.session_graph import session_graph
from conversions.providers.table import provider_for
from conversions.recipe import ImageSize
from conversions.verification.metrics import compare

THREADS = 2
RUNS = 3
TURNS = 2

Forward = Callable[[], Any]


def inputs_of(package: Package, side: int) -> dict[str, Any]:
    """Random inputs of both prompts, float32."""
    recipe = package.recipe
    random = np.random.default_rng(0)
    sizes = recipe.sizes("denoiser", ImageSize(width=side, height=side))
    (unet,) = package.with_role("denoiser")
    shapes = {each["name"]: each["shape"] for each in package.manifest["submodels"][unet]["inputs"]}
    feeds = {
        name: random.standard_normal([sizes.get(size, size) for size in shape]).astype(np.float32)
        for name, shape in shapes.items()
    }
    return feeds | {"timestep": np.array([481.0], np.float32)}


def in_onnxruntime(checkpoint: Path, package: Package, feeds: dict[str, Any]) -> Forward:
    """Open the package's U-Net as the commands open it."""
    del checkpoint
    session = onnx_session.open_session(package.graph("unet"), CPU, {}, exact=package.is_fp32)
    half = {each.name for each in session.get_inputs() if each.type == "tensor(float16)"}
    given = {name: each.astype(np.float16) if name in half else each for name, each in feeds.items()}
    return lambda: session.run(None, given)[0]


def in_openvino(checkpoint: Path, package: Package, feeds: dict[str, Any]) -> Forward:
    """Open the graph in the form that OpenVINO reads, computed in float32 as ONNX Runtime computes it."""
    del checkpoint
    import openvino

    graph = package.graph("unet")
    form = session_graph(graph, provider_for("openvino"))
    with tempfile.TemporaryDirectory(dir=graph.parents[2]) as folder:
        path = graph
        if isinstance(form.model, bytes):
            path = Path(folder) / graph.name
            path.write_bytes(form.model)
            for file in package.weight_files("unet"):
                os.link(package.folder / file, path.parent / Path(file).name)
        core = openvino.Core()
        model = core.read_model(path)
        model.reshape({name: list(each.shape) for name, each in feeds.items()})
        options = {"INFERENCE_NUM_THREADS": THREADS, "INFERENCE_PRECISION_HINT": "f32"}
        compiled = core.compile_model(model, "CPU", options)
        types = {each.any_name: each.element_type.to_dtype() for each in compiled.inputs}
        given = {name: each.astype(types[name]) for name, each in feeds.items()}
        return lambda: compiled(given)[0]


def in_torch(checkpoint: Path, package: Package, feeds: dict[str, Any]) -> Forward:
    """Open the checkpoint's U-Net with diffusers, in float32."""
    del package
    import torch
    from diffusers import UNet2DConditionModel

    torch.set_num_threads(THREADS)
    unet = UNet2DConditionModel.from_pretrained(checkpoint / "unet", torch_dtype=torch.float32).eval()
    given = [torch.from_numpy(feeds[name]) for name in ("sample", "timestep", "encoder_hidden_states")]

    def forward() -> Any:
        with torch.inference_mode():
            return unet(*given, return_dict=False)[0].numpy()

    return forward


RUNTIMES = {"torch": in_torch, "onnxruntime": in_onnxruntime, "openvino": in_openvino}


def take(runtime: str, checkpoint: Path, package: Package, side: int, output: Path) -> dict[str, Any]:
    """Measure one runtime in this process, and keep what it computed."""
    feeds = inputs_of(package, side)
    began = time.perf_counter()
    forward = RUNTIMES[runtime](checkpoint, package, feeds)
    load = time.perf_counter() - began
    seconds = []
    for _ in range(RUNS):
        began = time.perf_counter()
        result = forward()
        seconds.append(time.perf_counter() - began)
    np.save(output, np.asarray(result, np.float32))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"load_seconds": load, "run_seconds": seconds, "peak_rss_bytes": peak}


def main(checkpoint: Path, folder: Path, side: int) -> None:
    """Measure all runtimes in turns and write the comparison."""
    names = [name for name in RUNTIMES if name != "openvino" or importlib.util.find_spec("openvino")]
    taken: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as outputs:
        for _ in range(TURNS):
            for name in names:
                command = [
                    sys.executable,
                    "-m",
                    "tests.benchmarks.unet_runtimes",
                    str(checkpoint),
                    str(folder),
                ]
                measured = subprocess.run(
                    [*command, str(side), name, f"{outputs}/{name}.npy"],
                    check=True, stdout=subprocess.PIPE, text=True,
                )  # fmt: skip
                taken[name].append(json.loads(measured.stdout.splitlines()[-1]))
                print(name, taken[name][-1], file=sys.stderr)
        results = {name: np.load(f"{outputs}/{name}.npy") for name in names}
    reference = results["torch"]
    rows = {}
    for name, entries in taken.items():
        runs = [each for entry in entries for each in entry["run_seconds"]]
        rows[name] = {
            "load_seconds": min(entry["load_seconds"] for entry in entries),
            "best_run_seconds": min(runs),
            "median_run_seconds": statistics.median(runs),
            "peak_rss_bytes": max(entry["peak_rss_bytes"] for entry in entries),
            "psnr_db": None if name == "torch" else compare(results[name], reference).psnr_db,
        }
    if "openvino" not in rows:
        print("openvino is not installed: it was not measured", file=sys.stderr)
    print(json.dumps({"side": side, "threads": THREADS, "runtimes": rows}))


if __name__ == "__main__":
    where, opened = Path(sys.argv[1]), Path(sys.argv[2])
    pixels = int(sys.argv[3]) if len(sys.argv) > 3 else 512
    if len(sys.argv) > 4:
        print(json.dumps(take(sys.argv[4], where, open_package(opened), pixels, Path(sys.argv[5]))))
    else:
        main(where, opened, pixels)

"""One U-Net forward on ONNX Runtime's CPU provider: this project's graph beside graphs that other exporters
make.

Run as ``python -m tests.benchmarks.unet_on_cpu FOLDER [full|small]``. Makes a U-Net with random weights,
exports it as this project does and with torch's two exporters (the older one is what optimum and diffusers'
script use), then measures each in a process of its own, in turns: seconds to load, memory of the process,
seconds of a forward (batch 2, 2 threads), and agreement with PyTorch. Writes one JSON object.
"""

from __future__ import annotations

import json
import platform
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROUNDS = 3
CONFIGS = {
    "full": ({"cross_attention_dim": 768, "sample_size": 64}, 64),
    "small": (
        {
            "cross_attention_dim": 64,
            "block_out_channels": [32, 64, 64, 64],
            "norm_num_groups": 8,
            "sample_size": 32,
        },
        32,
    ),
}
VARIANTS = ("sdsetup", "torch-dynamo", "torchscript")


def _unet(size: str) -> Any:
    import torch
    from diffusers import UNet2DConditionModel

    torch.manual_seed(0)
    return UNet2DConditionModel(**CONFIGS[size][0]).eval()


def _inputs(size: str) -> dict[str, Any]:
    import numpy as np

    config, side = CONFIGS[size]
    random = np.random.default_rng(0)
    return {
        "sample": random.standard_normal((2, 4, side, side)).astype(np.float32),
        "timestep": np.array([481.0], np.float32),
        "encoder_hidden_states": random.standard_normal((2, 77, config["cross_attention_dim"])).astype(
            np.float32
        ),
    }


def make(folder: Path, size: str, variant: str) -> None:
    """Export one variant; ``torch`` writes the reference output instead."""
    import numpy as np
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    unet = _unet(size)
    inputs = {name: torch.from_numpy(array) for name, array in _inputs(size).items()}
    arguments = tuple(inputs.values())
    if variant == "torch":
        with torch.inference_mode():
            np.save(folder / "reference.npy", unet(*arguments, return_dict=False)[0].numpy())
        return
    if variant == "sdsetup":
        _make_ours(folder / variant, unet, CONFIGS[size][0])
        return

    class Plain(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.unet = unet

        def forward(self, sample: Any, timestep: Any, encoder_hidden_states: Any) -> Any:
            return self.unet(sample, timestep, encoder_hidden_states, return_dict=False)[0]

    (folder / variant).mkdir(exist_ok=True)
    names = {"input_names": list(inputs), "output_names": ["out_sample"], "opset_version": 18}
    path = folder / variant / "model.onnx"
    with torch.no_grad():
        torch.onnx.export(
            Plain(), arguments, str(path), dynamo=variant == "torch-dynamo", external_data=True, **names
        )


def _make_ours(folder: Path, unet: Any, config: dict[str, Any]) -> None:
    import onnx_ir as ir

    from conversions.graphs import find
    from conversions.graphs.trace import trace
    from conversions.passes.simplify import TRANSPOSED
    from conversions.submodels.unet import UNET

    folder.mkdir(exist_ok=True)
    shaping = {name: value for name, value in config.items() if name != "sample_size"}
    model = find(UNET, shaping, None) or trace(UNET, {**UNET.defaults, **shaping})
    weights = unet.state_dict()
    for name, value in model.graph.initializers.items():
        if value.const_value is None:
            tensor = weights[name]
            if TRANSPOSED in value.metadata_props:
                tensor = tensor.T.contiguous()
            array = tensor.reshape([int(size) for size in value.shape]).numpy()
            value.const_value = ir.tensor(array, name=name)
    ir.save(model, folder / "model.onnx", external_data="model.onnx_data")


def measure(folder: Path, size: str, variant: str) -> dict[str, Any]:
    """Load a variant and run it a few times."""
    import numpy as np
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 2
    options.log_severity_level = 3
    began = time.perf_counter()
    session = ort.InferenceSession(
        str(folder / variant / "model.onnx"), options, providers=["CPUExecutionProvider"]
    )
    load = time.perf_counter() - began
    feeds = _inputs(size)
    feeds = {value.name: feeds[value.name] for value in session.get_inputs()}
    seconds = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        (result,) = session.run(None, feeds)
        seconds.append(time.perf_counter() - began)
    reference = np.load(folder / "reference.npy")
    error = float(np.mean((result.astype(np.float64) - reference) ** 2))
    return {
        "load_seconds": load,
        "run_seconds": seconds,
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "psnr_db": 10 * float(np.log10(float(np.ptp(reference)) ** 2 / error)),
    }


def main(folder: Path, size: str) -> None:
    """Make what is missing, measure in turns, write the comparison."""

    def apart(verb: str, variant: str) -> str:
        command = [sys.executable, "-m", "tests.benchmarks.unet_on_cpu", str(folder), size, verb, variant]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1]

    for variant in ("torch", *VARIANTS):
        if not (folder / variant / "model.onnx").exists() and not (
            variant == "torch" and (folder / "reference.npy").exists()
        ):
            apart("make", variant)
    rounds: dict[str, list[dict[str, Any]]] = {variant: [] for variant in VARIANTS}
    for _ in range(2):
        for variant in VARIANTS:
            rounds[variant].append(json.loads(apart("measure", variant)))
    summary = {
        variant: {
            "run_seconds": min(min(entry["run_seconds"]) for entry in entries),
            "median_run_seconds": statistics.median(
                each for entry in entries for each in entry["run_seconds"]
            ),
            "load_seconds": min(entry["load_seconds"] for entry in entries),
            "peak_rss_bytes": min(entry["peak_rss_bytes"] for entry in entries),
            "psnr_db": entries[0]["psnr_db"],
        }
        for variant, entries in rounds.items()
    }
    best = min(summary[variant]["run_seconds"] for variant in VARIANTS[1:])
    print(
        json.dumps(
            {
                "size": size,
                "graphs": summary,
                "speed_against_best_peer": best / summary["sdsetup"]["run_seconds"],
                "machine": f"{platform.machine()}, Python {platform.python_version()}",
            }
        )
    )


if __name__ == "__main__":
    if len(sys.argv) > 3:
        verb, variant = sys.argv[3:]
        if verb == "make":
            make(Path(sys.argv[1]), sys.argv[2], variant)
            print("{}")
        else:
            print(json.dumps(measure(Path(sys.argv[1]), sys.argv[2], variant)))
    else:
        main(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "full")

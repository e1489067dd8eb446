"""What a conversion of true size costs, against copying, a bare loop, and the peers, in one run.

Run as ``python -m tests.benchmarks.convert WORK [--runs 3] [--optimum VENV]``; WORK needs 30 GB. The
checkpoints come from ``tests.benchmarks.full_size`` and stay in WORK. Every run starts with cold caches
where that can be had (root on Linux). ``--optimum`` names an environment with optimum-onnx (see
docs/benchmarks.md), in which ``--diffusers-script`` also runs diffusers'
``convert_stable_diffusion_checkpoint_to_onnx.py``. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from conversions.package.layout import record
from tests.benchmarks import full_size, process_tree

COPY = "import shutil, sys; shutil.copytree(sys.argv[1], sys.argv[2])"

# The least a conversion can be: read each tensor, cast it, write it.
BARE = """
import sys
from pathlib import Path
import numpy as np
from conversions.checkpoint.safetensors_header import read_header
from conversions.checkpoint.storage import Folder
source, output = Path(sys.argv[1]), Path(sys.argv[2])
output.mkdir()
storage = Folder(source)
for file in (name for name in storage.names() if name.endswith(".safetensors")):
    reader = storage.open(file)
    with (output / file.replace("/", "-")).open("wb", buffering=0) as sink:
        for tensor in read_header(storage, file).values():
            buffer = bytearray(tensor.size_bytes)
            reader.read_into(memoryview(buffer), tensor.offset)
            stored = np.frombuffer(buffer, {"F32": np.float32, "F16": np.float16}[tensor.dtype])
            sink.write(stored.astype(np.float16, copy=False).data)
"""

HASH = """
import hashlib, sys
from pathlib import Path
buffer = bytearray(4 << 20)
for path in sorted(Path(sys.argv[1]).rglob("*.safetensors")):
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            digest.update(memoryview(buffer)[:count])
"""

OPTIMUM = """
import sys
from optimum.exporters.onnx import main_export
main_export(sys.argv[1], sys.argv[2], task="text-to-image", device="cpu", do_validation=False)
"""

# The script is of the time when the exporter without dynamo was the only one, and when diffusers read what it
# had written without being given these two options.
DIFFUSERS = """
import functools, runpy, sys
import torch.onnx
from diffusers import OnnxRuntimeModel
torch.onnx.export = functools.partial(torch.onnx.export, dynamo=False)
OnnxRuntimeModel.from_pretrained = functools.partial(
    OnnxRuntimeModel.from_pretrained, provider_options=None, sess_options=None)
script, model, output = sys.argv[1:]
sys.argv = [script, "--model_path", model, "--output_path", output]
runpy.run_path(script, run_name="__main__")
"""


_CACHED = "benchmark/sdxl"


def cache(sdxl: Path, hub: Path) -> None:
    """Lay a checkpoint out as the Hub's cache has it: files named by their hashes, and links to them.

    Args:
        sdxl: The checkpoint.
        hub: Folder of the cache; its files are hard links, which take no space.
    """
    root = hub / f"models--{_CACHED.replace('/', '--')}"
    commit = "0" * 40
    for path in (each for each in sdxl.rglob("*") if each.is_file()):
        blob = root / "blobs" / record(path).sha256
        blob.parent.mkdir(parents=True, exist_ok=True)
        if not blob.exists():
            os.link(path, blob)
        link = root / "snapshots" / commit / path.relative_to(sdxl)
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.is_symlink():
            link.symlink_to(os.path.relpath(blob, link.parent))
    (root / "refs").mkdir(exist_ok=True)
    (root / "refs" / "main").write_text(commit, "ascii")


def commands(sd14: Path, sdxl: Path, optimum: Path | None, script: Path | None) -> dict[str, list[str]]:
    """Return what is timed; each command gets the folder to write as its last argument."""
    python = sys.executable
    ours = [python, "-m", "sdsetup", "convert", str(sd14), "--target", "cpu", "--output"]
    linked = [python, "-m", "sdsetup", "convert", "--target", "cpu", "--no-verify"]
    timed = {
        "sd14 cp": [python, "-c", COPY, str(sd14)],
        "sd14 bare loop": [python, "-c", BARE, str(sd14)],
        "sd14 sdsetup": [*ours[:-1], "--no-verify", "--output"],
        "sd14 sdsetup, verified": [*ours[:-1], "--no-smoke-test", "--output"],
        "sdxl cp": [python, "-c", COPY, str(sdxl)],
        "sdxl hashing alone": [python, "-c", HASH, str(sdxl)],
        "sdxl sdsetup": [*linked, str(sdxl), "--output"],
        "sdxl sdsetup, hashes known": [*linked, _CACHED, "--output"],
        "sdxl sdsetup --copy": [*linked, str(sdxl), "--copy", "--output"],
        "sdxl sdsetup --precision unet=int4": [*linked, str(sdxl), "--precision", "unet=int4", "--output"],
    }
    if optimum is not None:
        peer = str(optimum / "bin" / "python")
        timed["sd14 optimum-onnx"] = [peer, "-c", OPTIMUM, str(sd14)]
        if script is not None:
            timed["sd14 diffusers' script"] = [peer, "-c", DIFFUSERS, str(script), str(sd14)]
    return timed


def measure(work: Path, runs: int, optimum: Path | None, script: Path | None, only: str) -> dict[str, Any]:
    """Time every command in turn, round after round, so that a drifting machine hits all alike."""
    work.mkdir(parents=True, exist_ok=True)
    for name, make in (("sd14", full_size.make_sd14), ("sdxl", full_size.make_sdxl)):
        if not (work / name / "model_index.json").exists():
            shutil.rmtree(work / name, ignore_errors=True)
            make(work / name)
    cache(work / "sdxl", work / "hub")
    offline = {**os.environ, "HF_HUB_CACHE": str(work / "hub"), "HF_HUB_OFFLINE": "1"}
    timed = {
        name: argv
        for name, argv in commands(work / "sd14", work / "sdxl", optimum, script).items()
        if name.startswith(only)
    }
    costs: dict[str, list[process_tree.Cost]] = {name: [] for name in timed}
    sizes: dict[str, int] = {}
    written: dict[str, int] = {}
    cold = True
    for _ in range(runs):
        for name, argv in timed.items():
            output = work / "output"
            cold = process_tree.drop_caches() and cold
            try:
                costs[name].append(process_tree.run([*argv, str(output)], work, offline))
            except subprocess.CalledProcessError as error:
                print(f"{name} failed:\n{error.output}", file=sys.stderr)
            sizes[name] = sum(path.stat().st_size for path in output.rglob("*") if path.is_file())
            written[name] = sum(
                path.stat().st_size
                for path in output.rglob("*")
                if path.is_file() and path.stat().st_nlink == 1
            )
            shutil.rmtree(output, ignore_errors=True)
    medians = {
        name: {
            "runs": len(each),
            "wall_seconds": statistics.median(cost.wall_seconds for cost in each),
            "peak_rss_mib": max(cost.peak_rss_bytes for cost in each) >> 20,
            "peak_disk_over_output": round(
                max(cost.peak_disk_bytes for cost in each) / max(1, sizes[name]), 3
            ),
            "output_mib": sizes[name] >> 20,
            "written_mib": round(written[name] / (1 << 20), 2),
        }
        for name, each in costs.items()
        if each
    }
    return {
        "benchmark": "convert",
        "cold": cold,
        "medians": medians,
        "ratios": _ratios(medians),
        "all": {name: [asdict(cost) for cost in each] for name, each in costs.items()},
        "machine": process_tree.machine(),
    }


def _ratios(medians: dict[str, Any]) -> dict[str, float]:
    pairs = (
        ("sd14 sdsetup", "sd14 bare loop"),
        ("sd14 optimum-onnx", "sd14 sdsetup"),
        ("sd14 diffusers' script", "sd14 sdsetup"),
        ("sd14 sdsetup", "sd14 cp"),
        ("sdxl sdsetup, hashes known", "sdxl cp"),
        ("sdxl sdsetup", "sdxl hashing alone"),
        ("sdxl sdsetup --copy", "sdxl cp"),
    )
    return {
        f"{first} / {second}": round(medians[first]["wall_seconds"] / medians[second]["wall_seconds"], 2)
        for first, second in pairs
        if first in medians and second in medians
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--optimum", type=Path, help="environment with optimum-onnx")
    parser.add_argument("--diffusers-script", type=Path, help="its ONNX script, run in that environment")
    parser.add_argument("--only", default="", help="time only the commands that start so")
    chosen = parser.parse_args()
    result = measure(chosen.work, chosen.runs, chosen.optimum, chosen.diffusers_script, chosen.only)
    print(json.dumps(result, indent=1))

"""``convert --no-cache`` against download-then-convert, on a checkpoint of 1 GB served on loopback.

Run as ``python -m tests.benchmarks.no_cache [RUNS]``. Both ways convert the same model in turn, each from an
empty cache; graphs are traced before. Writes one JSON object: wall seconds, the largest memory of all
processes together, and the most disk that cache and package took at any moment, compared with the package.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from tests.checkpoints import make_tiny
from tests.hub_server import HubServer, Repo
from tests.hub_server.client import Machine
from tests.hub_server.kills import fingerprint

# Text encoder and VAE of Stable Diffusion 1, and a UNet of its shape with a third of its channels.
UNET = {
    "sample_size": 64,
    "block_out_channels": (128, 256, 384, 384),
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
}
VAE = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "sample_size": 512,
}
TEXT = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
ARGUMENTS = ["--no-verify", "--target", "cpu"]
SAMPLED_EVERY_SECONDS = 0.05


def make_checkpoint(folder: Path) -> Path:
    """Write a checkpoint of about 1 GB with random weights."""
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    make_tiny(folder, safety_checker=False)
    for component in ("unet", "vae", "text_encoder"):
        shutil.rmtree(folder / component)
    torch.manual_seed(0)
    UNet2DConditionModel(**UNET).save_pretrained(folder / "unet")
    AutoencoderKL(**VAE).save_pretrained(folder / "vae")
    CLIPTextModel(CLIPTextConfig(**TEXT)).save_pretrained(folder / "text_encoder")
    return folder


def measure(runs: int, home: Path) -> dict[str, Any]:
    """Convert both ways, ``runs`` times each."""
    checkpoint = make_checkpoint(home / "checkpoint")
    files = {
        path.relative_to(checkpoint).as_posix(): path for path in checkpoint.rglob("*") if path.is_file()
    }
    results: dict[str, list[dict[str, float]]] = {"--cache": [], "--no-cache": []}
    packages = []
    with HubServer() as hub:
        repo = hub.add(Repo(repo_id="acme/large", files=files))
        with Machine(endpoint=hub.endpoint, home=home / "user", stall_seconds=20) as machine:
            one_run(machine, repo, "--no-cache")  # traces the graphs, and warms the disk's cache
            for _ in range(runs):
                for way, found in results.items():
                    found.append(one_run(machine, repo, way))
                    packages.append(fingerprint(machine.home / "package"))
    package_bytes = size_bytes(home / "user" / "package")
    walls = {way: statistics.median(each["seconds"] for each in found) for way, found in results.items()}
    return {
        "benchmark": "no_cache",
        "checkpoint_bytes": size_bytes(checkpoint),
        "package_bytes": package_bytes,
        "runs": results,
        "wall_ratio": round(walls["--no-cache"] / walls["--cache"], 3),
        "disk_ratio": round(max(e["disk_bytes"] for e in results["--no-cache"]) / package_bytes, 4),
        "peak_rss_mib": round(max(e["rss_bytes"] for e in results["--no-cache"]) / 2**20),
        "packages_identical": all(package == packages[0] for package in packages),
        "machine": {
            "python": platform.python_version(),
            "system": platform.platform(),
            "cores": os.cpu_count(),
            "load": os.getloadavg() if hasattr(os, "getloadavg") else None,
        },
    }


def one_run(machine: Machine, repo: Repo, way: str) -> dict[str, float]:
    """Convert once, from an empty cache, and watch."""
    shutil.rmtree(machine.home / "hf", ignore_errors=True)
    shutil.rmtree(machine.home / "package", ignore_errors=True)
    began = time.monotonic()
    process = machine.start(
        "convert", repo.repo_id, *ARGUMENTS, way, "--output", str(machine.home / "package")
    )
    watched = psutil.Process(process.pid)
    rss = disk = 0
    while process.poll() is None:
        try:
            family = [watched, *watched.children(recursive=True)]
            rss = max(rss, sum(each.memory_info().rss for each in family))
        except psutil.NoSuchProcess:
            pass
        kept = [path for path in machine.home.iterdir() if path.name != "caches"]
        disk = max(disk, sum(size_bytes(path) for path in kept))
        time.sleep(SAMPLED_EVERY_SECONDS)
    seconds = time.monotonic() - began
    assert process.returncode == 0, process.communicate()[1]
    return {"seconds": round(seconds, 2), "rss_bytes": rss, "disk_bytes": disk}


def size_bytes(folder: Path) -> int:
    """Sum the sizes of all files below a folder; those that vanish meanwhile count nothing."""
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            path = Path(root, name)
            try:
                total += 0 if path.is_symlink() else path.stat().st_size
            except FileNotFoundError:
                continue
    return total


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(int(sys.argv[1]) if len(sys.argv) > 1 else 3, Path(folder)), indent=1))

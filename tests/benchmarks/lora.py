"""``python -m tests.benchmarks.lora PACKAGE [RANK] [attention|linear]``: what ``generate --lora`` adds.

PACKAGE is a package of true size, such as one that is converted from ``tests.benchmarks.full_size``. Writes a
float16 LoRA with random weights for all attention layers, or for all linear layers, then measures three times
what matching and merging it takes, submodel by submodel. Writes one JSON object.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from conversions.package.layout import Package
from conversions.weights.graph_weights import graph_weights
from conversions.weights.lora.request import AdapterRequest
from sdsetup.runtime.adapters import open_adapters
from sdsetup.runtime.package import open_for_images

_ROUNDS = 3
_ATTENTION = ("attn",)
_LINEAR = ("attn", "ff.net", "proj_", "mlp")


def write_adapter(package: Package, path: Path, rank: int, layers: tuple[str, ...]) -> int:
    """Write a LoRA for a package's layers; return how many it changes."""
    random = np.random.default_rng(0)
    tensors = {}
    for adapted in package.family.adapted:
        submodel = next(each.name for each in package.submodels if each.component == adapted.component)
        for name, weight in graph_weights(package.graph(submodel)).items():
            shape, module = weight.expression.shape, name.removesuffix(".weight")
            if module == name or len(shape) != 2 or not any(part in name for part in layers):
                continue
            stem = f"{adapted.component}.{module}"
            down, up = random.standard_normal((rank, shape[1])), random.standard_normal((shape[0], rank))
            tensors[f"{stem}.lora_A.weight"] = down.astype(np.float16)
            tensors[f"{stem}.lora_B.weight"] = (up / 100).astype(np.float16)
    save_file(tensors, path)
    return len(tensors) // 2


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Return the wall time and the processor time of some work, in seconds."""
    began, used = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - began, time.process_time() - used


def main(folder: Path, rank: int, layers: tuple[str, ...]) -> None:
    package = open_for_images(folder)
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "lora.safetensors"
        count = write_adapter(package, path, rank, layers)
        requests = [AdapterRequest(path=path, weight=0.8)]
        names = [
            each.name
            for each in package.submodels
            if each.component in {adapted.component for adapted in package.family.adapted}
        ]
        rounds = []
        for _ in range(_ROUNDS):
            times = {"match": timed(lambda: open_adapters(package, requests))}
            opened = open_adapters(package, requests)
            for submodel in names:
                times[submodel] = timed(partial(opened.merged_weights, package, submodel))
            rounds.append(times)
        changed = {
            submodel: sum(array.nbytes for array in opened.merged_weights(package, submodel).values())
            for submodel in names
        }
        medians = {
            part: {
                "wall_seconds": round(statistics.median(times[part][0] for times in rounds), 2),
                "processor_seconds": round(statistics.median(times[part][1] for times in rounds), 2),
            }
            for part in rounds[0]
        }
        result = {
            "layers": count,
            "rank": rank,
            "file_bytes": path.stat().st_size,
            "changed_bytes": changed,
            "cores": os.cpu_count(),
            "load": round(os.getloadavg()[0], 1),
            "parts": medians,
            "total_wall_seconds": round(sum(each["wall_seconds"] for each in medians.values()), 2),
        }
        print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main(
        Path(sys.argv[1]),
        int(sys.argv[2]) if len(sys.argv) > 2 else 64,
        _LINEAR if "linear" in sys.argv else _ATTENTION,
    )

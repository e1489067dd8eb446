"""The memory forecast beside what sessions take: ``python -m tests.benchmarks.forecast PACKAGE [SIDE...]``.

Each submodel is opened as ``sdsetup generate`` opens it, on the CPU, and run once for an image of SIDE
pixels (512), in a process of its own whose peak of resident memory is watched. Prints one JSON object: bytes
taken beyond the bare process, bytes forecast, and their ratio.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from conversions.forecast import forecast
from conversions.package.layout import open_package
from conversions.pipeline_graphs import package_graphs
from conversions.recipe import ImageSize
from tests.benchmarks import process_tree


def take(package: Path, submodel: str, side: int) -> int:
    """Open one submodel, run it once, and return the peak of memory beyond what the process had, in bytes."""
    import numpy as np
    import onnxruntime  # noqa: F401  # its own memory is not the submodel's

    from conversions.providers.devices import CPU
    from conversions.shape_inference import fix_sizes, static_shape
    from sdsetup.runtime import sessions

    graphs = package_graphs(open_package(package))
    fixed = fix_sizes(graphs.models[submodel], graphs.sizes(submodel, ImageSize(width=side, height=side)))
    inputs = {}
    for value in fixed.graph.inputs:
        shape, dtype = static_shape(value), value.dtype
        assert shape is not None and dtype is not None and value.name is not None
        random = np.random.default_rng(0)
        floats = dtype.numpy().kind == "f"
        inputs[value.name] = (random.standard_normal(shape) if floats else np.ones(shape)).astype(
            dtype.numpy()
        )
    del graphs, fixed
    with process_tree.memory_taken() as taken:
        loaded = sessions.load(package / submodel / "model.onnx", CPU, {})
        sessions.run(loaded, inputs, "running it")
    return taken[0]


def measure(package: Path, sides: list[int]) -> dict[str, Any]:
    """Compare every submodel at every size."""
    rows = []
    graphs = package_graphs(open_package(package))
    for side in sides:
        for need in forecast(graphs, ImageSize(width=side, height=side)).needs:
            done = subprocess.run(
                [sys.executable, "-m", "tests.benchmarks.forecast", "--take", str(package), need.submodel,
                 str(side)],
                check=True, capture_output=True, text=True,
            )  # fmt: skip
            taken = int(done.stdout.splitlines()[-1])
            row = {"submodel": need.submodel, "side": side, "taken_bytes": taken}
            rows.append(
                {**row, "forecast_bytes": need.cpu_bytes, "taken_over_forecast": taken / need.cpu_bytes}
            )
    return {"benchmark": "forecast", "rows": rows, "machine": process_tree.machine()}


if __name__ == "__main__":
    if sys.argv[1] == "--take":
        print(take(Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])))
    else:
        print(json.dumps(measure(Path(sys.argv[1]), [int(side) for side in sys.argv[2:]] or [512]), indent=1))

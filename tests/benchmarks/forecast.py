"""The memory forecast beside what sessions take: ``python -m tests.benchmarks.forecast PACKAGE [SIDE...]``.

Each submodel is opened as ``sdsetup generate`` opens it and run twice for an image of SIDE pixels (512), in a
process of its own. Prints one JSON object: bytes taken, bytes forecast, and their ratio. On the CPU they are
those of resident memory beyond the bare process; on an NVIDIA card, by ``--provider``, those of the card
beyond what it held before, and the forecast counts a program's context too.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from conversions.forecast import CONTEXT_BYTES, forecast
from conversions.package.layout import open_package
from conversions.pipeline_graphs import package_graphs
from conversions.providers.table import provider_for
from conversions.recipe import ImageSize
from tests.benchmarks import card_memory, process_tree
from tests.benchmarks.place import OPTIONS, Place


def take(package: Path, submodel: str, side: int, provider: str) -> int:
    """Open one submodel, run it, and return the peak of memory beyond what the process had, in bytes."""
    import numpy as np
    import onnxruntime  # noqa: F401  # its own memory is not the submodel's

    from conversions.shape_inference import fix_sizes, static_shape
    from sdsetup.runtime.devices import choose_device, list_devices
    from sdsetup.runtime.runner import LocalRunner

    opened = open_package(package)
    graphs = package_graphs(opened)
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
    runner = LocalRunner(package=opened, device=choose_device(list_devices(), target=provider))
    with process_tree.memory_taken() as taken:
        for _ in range(2):  # launches are recorded in the second
            runner.run(submodel, inputs)
    runner.close()
    return taken[0]


def measure(package: Path, sides: list[int], place: Place) -> dict[str, Any]:
    """Compare every submodel at every size."""
    rows = []
    graphs = package_graphs(open_package(package)).run_by(provider_for(place.provider))
    for side in sides:
        for need in forecast(graphs, ImageSize(width=side, height=side)).needs:
            arguments = ("--take", need.submodel, str(side))
            taken, held = place.run("tests.benchmarks.forecast", package, *arguments)
            expected = need.cpu_bytes
            if place.provider != "cpu":
                assert held is not None, "no card tells its memory"
                taken, expected = held, CONTEXT_BYTES + need.total_bytes
            rows.append(
                {
                    "submodel": need.submodel,
                    "side": side,
                    "taken_bytes": taken,
                    "forecast_bytes": expected,
                    "taken_over_forecast": taken / expected,
                }
            )
    return {
        "benchmark": "forecast",
        "provider": place.provider,
        "rows": rows,
        "card": card_memory.card(),
        "machine": process_tree.machine(),
    }


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.forecast", description=f"{__doc__}\n{OPTIONS}"
    )
    parser.add_argument("package", type=Path)
    parser.add_argument("side", type=int, nargs="*", default=[512])
    Place.add_options(parser)
    parser.add_argument("--take", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.take:
        submodel, side = options.take
        print(take(options.package, submodel, int(side), options.provider))
    else:
        print(json.dumps(measure(options.package, options.side, Place.of(options)), indent=1))


if __name__ == "__main__":
    main()

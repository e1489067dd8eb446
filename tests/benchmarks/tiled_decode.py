"""An image decoded whole and in tiles: ``python -m tests.benchmarks.tiled_decode PACKAGE [--size WxH...]``.

Both on the CPU, one after the other, each in a process of its own whose peak of resident memory is watched,
on the same random latents. Prints one JSON object: seconds with the opening of the sessions, bytes taken
beyond the bare process, bytes forecast, and the PSNR of the tiles against the whole, of pixels from -1 to 1.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from conversions.forecast import forecast
from conversions.package.layout import open_package
from conversions.pipeline_graphs import package_graphs
from conversions.providers.devices import CPU
from conversions.recipe import ImageSize
from sdsetup.runtime.runner import LocalRunner
from tests.benchmarks import process_tree


def decode(
    package: Path, width: int, height: int, side: int, output: Path, *, upcast: bool
) -> dict[str, Any]:
    """Decode random latents once, in tiles of ``side`` pixels or whole for 0; keep the image."""
    import onnxruntime  # noqa: F401  # its own memory is not the decoder's

    opened = open_package(package)
    (decoder,) = opened.with_role("decoder")
    shape = opened.recipe.latents.shape(ImageSize(width=width, height=height))
    latents = np.random.default_rng(0).standard_normal((1, *shape)).astype(np.float32)
    runner = LocalRunner(package=opened, device=CPU, tiles={decoder: side} if side else {})
    if upcast:
        runner.upcast_to_fp32(decoder)
    images: list[Any] = []

    def run(name: str, inputs: Any) -> Any:
        outputs = runner.run(name, inputs)
        images.append(outputs)
        return outputs

    with process_tree.memory_taken() as taken:
        began = time.perf_counter()
        opened.recipe.decode(run, latents)
        seconds = time.perf_counter() - began
    np.save(output, next(iter(images[-1].values())))
    return {"seconds": round(seconds, 2), "taken_bytes": taken[0]}


def measure(package: Path, sizes: list[tuple[int, int]], sides: list[int], *, upcast: bool) -> dict[str, Any]:
    """Compare tiles with the whole at each size."""
    rows = []
    graphs = package_graphs(open_package(package)).run_by(CPU.provider)
    (decoder,) = open_package(package).with_role("decoder")
    for width, height in sizes:
        with tempfile.TemporaryDirectory() as folder:
            for side in (0, *sides):
                output = Path(folder) / f"{side}.npy"
                done = subprocess.run(
                    [sys.executable, "-m", "tests.benchmarks.tiled_decode", str(package),
                     "--one", f"{width}", f"{height}", f"{side}", str(output),
                     *(["--float32"] if upcast else [])],
                    check=True, capture_output=True, text=True,
                )  # fmt: skip
                tiles = {decoder: side} if side else {}
                only = graphs.without(frozenset(graphs.models) - {decoder}).in_tiles(tiles)
                (need,) = forecast(only, ImageSize(width=width, height=height)).needs
                rows.append(
                    {
                        "size": f"{width}x{height}",
                        "tiles": side or None,
                        **json.loads(done.stdout.splitlines()[-1]),
                        "forecast_bytes": need.cpu_bytes,
                        "kept_bytes": need.kept_bytes,
                        "decibels": _decibels(Path(folder) / "0.npy", output),
                    }
                )
    return {"benchmark": "tiled_decode", "rows": rows, "machine": process_tree.machine()}


def _decibels(whole: Path, tiled: Path) -> float | None:
    expected, found = (np.load(path).astype(np.float64) for path in (whole, tiled))
    error = float(np.mean((expected - found) ** 2))
    return round(10 * float(np.log10(4 / error)), 1) if error else None


def _size(text: str) -> tuple[int, int]:
    width, height = text.split("x")
    return int(width), int(height)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.tiled_decode", description=__doc__)
    parser.add_argument("package", type=Path)
    parser.add_argument("--size", type=_size, nargs="+", default=[(512, 512)], metavar="WxH")
    parser.add_argument("--side", type=int, nargs="+", default=[256], help="sides of tiles, in pixels")
    parser.add_argument("--float32", action="store_true", help="compute in float32 on float16 weights")
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        width, height, side = (int(each) for each in options.one[:3])
        print(
            json.dumps(
                decode(options.package, width, height, side, Path(options.one[3]), upcast=options.float32)
            )
        )
    else:
        print(
            json.dumps(measure(options.package, options.size, options.side, upcast=options.float32), indent=1)
        )


if __name__ == "__main__":
    main()

"""An image decoded whole and in tiles: ``python -m tests.benchmarks.tiled_decode PACKAGE [--size WxH...]``.

One after the other, each in a process of its own, on the same random latents. Prints one JSON object: seconds
with the opening of the sessions and of a second run, bytes taken, bytes forecast, and the PSNR of the tiles
against the whole, of pixels from -1 to 1.

On the CPU the bytes are those of resident memory beyond the bare process. On an NVIDIA card, by
``--provider``, they are the card's beyond what it held before.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conversions.forecast import CONTEXT_BYTES, forecast
from conversions.package.layout import open_package
from conversions.pipeline_graphs import package_graphs
from conversions.providers.table import provider_for
from conversions.recipe import ImageSize
from sdsetup.runtime.devices import choose_device, list_devices
from sdsetup.runtime.runner import LocalRunner
from tests.benchmarks import card_memory, process_tree
from tests.benchmarks.place import OPTIONS, Place


def decode(
    package: Path, width: int, height: int, side: int, output: Path, *, provider: str, upcast: bool
) -> dict[str, Any]:
    """Decode random latents twice, in tiles of ``side`` pixels or whole for 0; keep the image."""
    import onnxruntime  # noqa: F401  # its own memory is not the decoder's

    opened = open_package(package)
    (decoder,) = opened.with_role("decoder")
    shape = opened.recipe.latents.shape(ImageSize(width=width, height=height))
    latents = np.random.default_rng(0).standard_normal((1, *shape)).astype(np.float32)
    device = choose_device(list_devices(), target=provider)
    runner = LocalRunner(package=opened, device=device, tiles={decoder: side} if side else {})
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
        began = time.perf_counter()
        opened.recipe.decode(run, latents)
        again = time.perf_counter() - began
    np.save(output, next(iter(images[-1].values())))
    runner.close()
    usage = runner.usage()[decoder]
    return {
        "seconds": round(seconds, 2),
        "again_seconds": round(again, 3),
        "load_seconds": [round(each, 3) for each in usage.load_seconds],
        "run_seconds": [round(each, 3) for each in usage.run_seconds],
        "taken_bytes": taken[0],
    }


def measure(
    package: Path, sizes: list[tuple[int, int]], sides: list[int], place: Place, *, upcast: bool
) -> dict[str, Any]:
    """Compare tiles with the whole at each size."""
    rows = []
    graphs = package_graphs(open_package(package)).run_by(provider_for(place.provider))
    (decoder,) = open_package(package).with_role("decoder")
    for width, height in sizes:
        whole = None
        for side in (0, *sides):
            output = package.parent / f"{package.name}-{side}.npy"
            wanted = ("--one", f"{width}", f"{height}", f"{side}", place.named(output))
            options = ("--float32",) if upcast else ()
            done, held = place.run("tests.benchmarks.tiled_decode", package, *options, *wanted)
            image = np.load(output).astype(np.float64)
            output.unlink()
            whole = image if whole is None else whole
            tiles = {decoder: side} if side else {}
            only = graphs.without(frozenset(graphs.models) - {decoder}).in_tiles(tiles)
            (need,) = forecast(only, ImageSize(width=width, height=height)).needs
            on_card = CONTEXT_BYTES + need.total_bytes
            rows.append(
                {
                    "size": f"{width}x{height}",
                    "tiles": side or None,
                    **done,
                    "card_bytes": held,
                    "forecast_bytes": need.cpu_bytes if place.provider == "cpu" else on_card,
                    "kept_bytes": need.kept_bytes,
                    "decibels": _decibels(whole, image),
                }
            )
    return {
        "benchmark": "tiled_decode",
        "provider": place.provider,
        "rows": rows,
        "card": card_memory.card(),
        "machine": process_tree.machine(),
    }


def _decibels(expected: NDArray[np.float64], found: NDArray[np.float64]) -> float | None:
    error = float(np.mean((expected - found) ** 2))
    return round(10 * float(np.log10(4 / error)), 1) if error else None


def _size(text: str) -> tuple[int, int]:
    width, height = text.split("x")
    return int(width), int(height)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.tiled_decode", description=f"{__doc__}\n{OPTIONS}"
    )
    parser.add_argument("package", type=Path)
    parser.add_argument("--size", type=_size, nargs="+", default=[(512, 512)], metavar="WxH")
    parser.add_argument("--side", type=int, nargs="+", default=[256], help="sides of tiles, in pixels")
    parser.add_argument("--float32", action="store_true", help="compute in float32 on float16 weights")
    Place.add_options(parser)
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        width, height, side = (int(each) for each in options.one[:3])
        output = Path(options.one[3])
        done = decode(
            options.package, width, height, side, output, provider=options.provider, upcast=options.float32
        )
        print(json.dumps(done))
    else:
        place = Place.of(options)
        done = measure(options.package, options.size, options.side, place, upcast=options.float32)
        print(json.dumps(done, indent=1))


if __name__ == "__main__":
    main()

"""``sdsetup benchmark``: how fast a package is on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from sdsetup.cli import output, package_folder
from sdsetup.cli.device_options import (
    AdapterOption,
    DeviceOption,
    EncoderProviderOption,
    LowVramOption,
    ProviderOption,
    VaeTilingOption,
    VramOption,
    device_request,
)
from sdsetup.cli.progress import listening
from sdsetup.disk_space import human_size

if TYPE_CHECKING:
    from sdsetup.imaging.benchmark import Benchmark


def benchmark(
    package: Annotated[Path, typer.Argument(help="The converted package's folder.")],
    runs: Annotated[int, typer.Option(min=1, max=100, help="Batches to time, after one to warm up.")] = 3,
    steps: Annotated[int, typer.Option(help="Scheduler steps.")] = 20,
    width: Annotated[int | None, typer.Option(help="In pixels; the checkpoint's own without it.")] = None,
    height: Annotated[int | None, typer.Option(help="In pixels; the checkpoint's own without it.")] = None,
    images: Annotated[int, typer.Option(help="Images made at once.")] = 1,
    provider: ProviderOption = None,
    device_id: DeviceOption = None,
    adapter: AdapterOption = None,
    low_vram: LowVramOption = None,
    vram: VramOption = None,
    encoder_provider: EncoderProviderOption = None,
    vae_tiling: VaeTilingOption = None,
    against: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Compare with what --json printed before, here or elsewhere."),
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print a table to post.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Time loading, steps and images, and watch memory, to compare machines."""
    from sdsetup.imaging import benchmark_table
    from sdsetup.imaging.benchmark import benchmark as measure
    from sdsetup.imaging.request import Request, complete
    from sdsetup.imaging.schedulers import plainest
    from sdsetup.runtime import start
    from sdsetup.runtime.package import open_for_images

    package_folder.demand(package, "benchmark")
    other = benchmark_table.read(against) if against is not None else None
    opened = open_for_images(package)
    requested = device_request(
        provider=provider,
        device_id=device_id,
        adapter=adapter,
        low_vram=low_vram,
        vram=vram,
        encoder_provider=encoder_provider,
        vae_tiling=vae_tiling,
    )
    request = Request(
        prompt="a photograph of an astronaut riding a horse",
        seed=1,
        steps=steps,
        width=width,
        height=height,
        images=images,
        # One evaluation a step, whatever the checkpoint's own scheduler is.
        scheduler=plainest(opened.recipe.scheduler_config),
    )
    with listening() as listener:
        size, unused = complete(request, opened).size, frozenset(opened.with_role("encoder"))
        runner = start.start(opened, requested, size, listener, unused=unused)
        try:
            result = measure(opened, runner, request, runs=runs, listener=listener)
        finally:
            runner.close()
    if as_json:
        output.emit_json(result.as_document())
    elif markdown:
        output.emit(benchmark_table.as_markdown(result.as_document(), other))
    else:
        output.show(_table(result))
        if other is not None:
            output.show(_comparison(benchmark_table.rows(result.as_document(), other), against))
        output.say(start.summary(runner))


def _comparison(rows: Sequence[tuple[str, ...]], against: Path | None) -> Table:
    table = Table(show_header=True)
    for heading in ("", "now", str(against), "now / then"):
        table.add_column(heading, justify="left" if not heading else "right")
    for row in rows:
        table.add_row(*row)
    return table


def _table(result: Benchmark) -> Table:
    request, machine = result.request, result.machine
    size = f"{request.width}x{request.height}, {request.steps} steps"
    title = f"{machine['package']}, {size}, {machine['device']}"
    table = Table(title=title, show_header=True)
    for heading in ("", "load", "first run", "run", "runs"):
        table.add_column(heading, justify="left" if not heading else "right")
    for name, times in result.submodels.items():
        seconds = (times.load_seconds, times.first_seconds, times.run_seconds)
        table.add_row(name, *(f"{value:.3f} s" for value in seconds), str(times.runs))
    table.add_section()
    vram = "not known here" if result.peak_vram_bytes is None else human_size(result.peak_vram_bytes)
    for label, value in (
        ("a step", f"{result.seconds_per_step:.3f} s"),
        ("an image", f"{result.seconds_per_image:.2f} s"),
        ("first image", f"{result.first_image_seconds:.2f} s"),
        ("peak RAM", human_size(result.peak_ram_bytes)),
        ("peak VRAM", vram),
    ):
        table.add_row(label, "", "", value, "")
    return table

"""``sdsetup smoke-test``: see that a package makes an image."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

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


def smoke_test(
    package: Annotated[Path, typer.Argument(help="The converted package's folder.")],
    destination: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FOLDER", help="Keep the images in a folder.")
    ] = None,
    steps: Annotated[int, typer.Option(help="Scheduler steps.")] = 20,
    provider: ProviderOption = None,
    device_id: DeviceOption = None,
    adapter: AdapterOption = None,
    low_vram: LowVramOption = None,
    vram: VramOption = None,
    encoder_provider: EncoderProviderOption = None,
    vae_tiling: VaeTilingOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Make an image and fail if it is black, flat, full of NaN or not what was asked for."""
    from sdsetup.imaging import image_file, smoke_test
    from sdsetup.runtime import start
    from sdsetup.runtime.package import open_for_images

    if destination is not None:
        image_file.demand_png(destination)
    package_folder.demand(package, "smoke-test")
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
    with listening() as listener:
        outcomes, runner = smoke_test.try_out(opened, requested, steps=steps, listener=listener)
    if destination is not None:
        for outcome in outcomes:
            output.say(f"wrote {smoke_test.keep(outcome, opened, runner, destination)}")
    if as_json:
        output.emit_json(
            {
                "images": [
                    {
                        "prompt": outcome.request.prompt,
                        "seed": outcome.request.seed,
                        "mean": outcome.mean,
                        "deviation": outcome.deviation,
                        "faults": list(outcome.faults),
                        "seconds": outcome.seconds,
                    }
                    for outcome in outcomes
                ],
                "passed": not any(outcome.faults for outcome in outcomes),
                "ran": start.as_document(runner),
            }
        )
    smoke_test.raise_for(outcomes)
    count = f"{len(outcomes)} image{'s' if len(outcomes) > 1 else ''}"
    output.say(f"the smoke test passed: {count}; {start.summary(runner)}.")

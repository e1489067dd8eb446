"""``sdsetup smoke-test``: see that a package makes a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sdsetup.cli import output
from sdsetup.cli.device_options import AdapterOption, DeviceOption, LowVramOption, ProviderOption
from sdsetup.cli.progress import listening


def smoke_test(
    package: Annotated[Path, typer.Argument(help="The converted package's folder.")],
    destination: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FOLDER", help="Keep the pictures in a folder.")
    ] = None,
    steps: Annotated[int, typer.Option(help="Scheduler steps.")] = 20,
    provider: ProviderOption = None,
    device_id: DeviceOption = None,
    adapter: AdapterOption = None,
    low_vram: LowVramOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Make a picture and fail if it is black, flat, full of NaN or not what was asked for."""
    from sdsetup import smoke
    from sdsetup.runtime import start
    from sdsetup.runtime.package import open_package

    opened = open_package(package)
    wishes = start.Wishes(provider=provider, device_id=device_id, adapter=adapter, low_vram=low_vram)
    with listening() as listener:
        outcomes, runner = smoke.try_out(opened, wishes, steps=steps, listener=listener)
    if destination is not None:
        for outcome in outcomes:
            output.say(f"wrote {smoke.keep(outcome, opened, runner, destination)}")
    if as_json:
        output.emit_json(
            {
                "pictures": [
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
    smoke.raise_for(outcomes)
    count = f"{len(outcomes)} picture{'s' if len(outcomes) > 1 else ''}"
    output.say(f"the smoke test passed: {count}; {start.summary(runner)}.")

"""``sdsetup generate``: make pictures from a prompt."""

from __future__ import annotations

import secrets
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from sdsetup.cli import output
from sdsetup.cli.device_options import AdapterOption, DeviceOption, LowVramOption, ProviderOption
from sdsetup.cli.progress import listening
from sdsetup.errors import UsageError


def generate(
    package: Annotated[Path | None, typer.Argument(help="The converted package's folder.")] = None,
    prompt: Annotated[str | None, typer.Argument(help="What to show; (word:1.3) weighs a word.")] = None,
    negative_prompt: Annotated[str | None, typer.Option(help="What to keep away from.")] = None,
    seed: Annotated[int | None, typer.Option(help="Same seed, same picture; random without it.")] = None,
    steps: Annotated[int | None, typer.Option(help="Scheduler steps; 30 without it.")] = None,
    guidance_scale: Annotated[
        float | None, typer.Option(help="How closely to follow the prompt; 7.5 without it, 1 is off.")
    ] = None,
    eta: Annotated[float | None, typer.Option(help="Noise that ddim adds back, 0 to 1.")] = None,
    width: Annotated[int | None, typer.Option(help="In pixels; the checkpoint's own without it.")] = None,
    height: Annotated[int | None, typer.Option(help="In pixels; the checkpoint's own without it.")] = None,
    images: Annotated[int | None, typer.Option(help="Pictures made at once; their seeds count up.")] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="ddim, pndm, euler, euler_ancestral, dpmpp_2m or lms."),
    ] = None,
    destination: Annotated[
        Path | None, typer.Option("--output", "-o", help="A .png file or a folder; this folder without it.")
    ] = None,
    repeated: Annotated[
        Path | None,
        typer.Option("--from", metavar="IMAGE", help="Repeat a picture; other options change its recipe."),
    ] = None,
    provider: ProviderOption = None,
    device_id: DeviceOption = None,
    adapter: AdapterOption = None,
    low_vram: LowVramOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Make pictures from a prompt with a converted package."""
    from sdsetup import picture
    from sdsetup.inference import Pipeline, Request, complete
    from sdsetup.runtime import start
    from sdsetup.runtime.package import open_package

    given: dict[str, Any] = {
        "prompt": prompt,
        "negative_prompt": negative_prompt,
        "seed": seed,
        "steps": steps,
        "guidance_scale": guidance_scale,
        "eta": eta,
        "width": width,
        "height": height,
        "images": images,
        "scheduler": scheduler.replace("-", "_").lower() if scheduler is not None else None,
    }
    given = {name: value for name, value in given.items() if value is not None}
    before = picture.read_recipe(repeated) if repeated is not None else None
    if before is not None and repeated is not None:
        request = replace(before.request, **given)
        package = package or picture.find_package(before, repeated)
    elif package is None or prompt is None:
        raise UsageError(
            "generate.arguments",
            "generate needs a package and a prompt.",
            'for example: sdsetup generate ./package "a lighthouse at dawn"',
        )
    else:
        request = Request(**{"seed": secrets.randbelow(2**32), **given})
    opened = open_package(package)
    request = complete(request, opened)
    wishes = start.Wishes(provider=provider, device_id=device_id, adapter=adapter, low_vram=low_vram)
    with listening() as listener:
        if before is not None and before.fingerprint != opened.fingerprint:
            output.say(f"the picture was made with another package than {opened.folder}: it will differ.")
        runner = start.start(opened, wishes, listener)
        recipe = picture.recipe_of(request, opened, runner.device.provider.name)
        paths = picture.paths_for(destination, recipe)
        try:
            pictures = Pipeline(package=opened, runner=runner, listener=listener).generate(request)
        finally:
            runner.close()
    for place, path in enumerate(paths):
        picture.write_picture(path, pictures.pixels[place], recipe.of_picture(place))
        if not as_json:
            output.emit(str(path))
    output.say(f"{start.summary(runner)}; {pictures.total_seconds:.1f} s, seed {request.seed}.")
    if as_json:
        output.emit_json(
            {
                "pictures": [
                    {"path": str(path), "seed": request.seed + place, "flagged": pictures.flagged[place]}
                    for place, path in enumerate(paths)
                ],
                "recipe": picture.as_document(recipe),
                "ran": start.as_document(runner),
                "seconds": {"denoise": pictures.denoise_seconds, "total": pictures.total_seconds},
            }
        )

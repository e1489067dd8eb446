"""``sdsetup generate``: make images from a prompt."""

from __future__ import annotations

import math
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sdsetup.cli import output, package_folder
from sdsetup.cli.adapter_options import IgnoreUnmatchedOption, LoraOption, TextualInversionOption
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
from sdsetup.errors import SetupError, saying_what_is_kept

if TYPE_CHECKING:
    from sdsetup.imaging.image_file import WrittenImage
    from sdsetup.imaging.preview import Preview


def generate(
    package: Annotated[Path | None, typer.Argument(help="The converted package's folder.")] = None,
    prompt: Annotated[str | None, typer.Argument(help="What to show; (word:1.3) weighs a word.")] = None,
    negative_prompt: Annotated[str | None, typer.Option(help="What to keep away from.")] = None,
    seed: Annotated[int | None, typer.Option(help="Same seed, same image; random without it.")] = None,
    steps: Annotated[int | None, typer.Option(help="Scheduler steps. [default: the checkpoint's]")] = None,
    guidance_scale: Annotated[
        float | None,
        typer.Option(help="How closely to follow the prompt; 1 is off. [default: the checkpoint's]"),
    ] = None,
    eta: Annotated[
        float | None, typer.Option(help="Share of noise that ddim or tcd add back at each step, 0 to 1.")
    ] = None,
    width: Annotated[int | None, typer.Option(help="In pixels; the checkpoint's own without it.")] = None,
    height: Annotated[int | None, typer.Option(help="In pixels; the checkpoint's own without it.")] = None,
    images: Annotated[int | None, typer.Option(help="Images made at once; their seeds count up.")] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Such as euler, dpmpp_2m or unipc; a wrong name lists all. [default: the checkpoint's own]",
        ),
    ] = None,
    init_image: Annotated[
        Path | None, typer.Option(metavar="IMAGE", help="Start from this image instead of from noise.")
    ] = None,
    mask: Annotated[
        Path | None,
        typer.Option(metavar="IMAGE", help="Change the initial image only where this one is white."),
    ] = None,
    strength: Annotated[
        float | None, typer.Option(help="How much the initial image may change, above 0 up to 1.")
    ] = None,
    clip_skip: Annotated[
        int | None, typer.Option(help="Layers to leave out at the end of CLIP's text encoders.")
    ] = None,
    refiner: Annotated[
        Path | None, typer.Option(metavar="PACKAGE", help="Make the last steps with this SDXL refiner.")
    ] = None,
    refiner_start: Annotated[
        float | None,
        typer.Option(help="Share of the way after which the refiner takes over. [default: 0.8]"),
    ] = None,
    lora: LoraOption = None,
    ignore_unmatched: IgnoreUnmatchedOption = False,
    textual_inversion: TextualInversionOption = None,
    allow_pickle: Annotated[
        bool, typer.Option("--allow-pickle", help="Accept embeddings that are only pickles.")
    ] = False,
    destination: Annotated[
        Path | None, typer.Option("--output", "-o", help="A .png file or a folder; this folder without it.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace images that are there under the names given.")
    ] = False,
    preview: Annotated[
        int | None,
        typer.Option(metavar="N", help="Write a preview image every N steps: OUTPUT-preview.png."),
    ] = None,
    repeated: Annotated[
        Path | None,
        typer.Option("--from", metavar="IMAGE", help="Repeat an image; other options change its metadata."),
    ] = None,
    provider: ProviderOption = None,
    device_id: DeviceOption = None,
    adapter: AdapterOption = None,
    low_vram: LowVramOption = None,
    vram: VramOption = None,
    encoder_provider: EncoderProviderOption = None,
    vae_tiling: VaeTilingOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Make images from a prompt with a converted package."""
    from sdsetup.adapter_source import adapters_at, embeddings_at
    from sdsetup.imaging import image_file, initial_image, prompts
    from sdsetup.imaging.pipeline import Pipeline
    from sdsetup.imaging.preview import Preview, demand_interval, place_for
    from sdsetup.imaging.refiner import demand_refinable, open_refiner, use_of
    from sdsetup.imaging.request import Request, complete
    from sdsetup.runtime import start
    from sdsetup.runtime.adapters import open_adapters
    from sdsetup.runtime.memory_plan import Use
    from sdsetup.runtime.package import open_for_images
    from sdsetup.runtime.textual_inversion import open_embeddings
    from sdsetup.runtime.used_again import used_again

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
        "init_image": str(init_image) if init_image is not None else None,
        "mask": str(mask) if mask is not None else None,
        "strength": strength,
        "clip_skip": clip_skip,
        "refiner": str(refiner) if refiner is not None else None,
        "refiner_start": refiner_start,
        "scheduler": scheduler.replace("-", "_").lower() if scheduler is not None else None,
    }
    given = {name: value for name, value in given.items() if value is not None}
    if preview is not None:
        demand_interval(preview)
    before = image_file.read_metadata(repeated) if repeated is not None else None
    if before is not None and repeated is not None:
        request = replace(before.request, **given)
        package = package or image_file.find_package(before, repeated)
    elif package is None or prompt is None:
        raise package_folder.incomplete(package)
    else:
        request = Request(**{"seed": secrets.randbelow(2**32), **given})
    package_folder.demand(package, "generate", request.prompt)
    remarks = [
        *prompts.examine(request.prompt, "the prompt"),
        *prompts.examine(request.negative_prompt, "the negative prompt"),
    ]
    opened = open_for_images(package)
    request = complete(request, opened)
    if not opened.recipe.weighs_words:
        remarks += prompts.examine_unweighed(request.prompt, "the prompt")
    if request.negative_prompt and not opened.recipe.guided(request.guidance_scale or 0.0):
        remarks.append(
            "the negative prompt is not read: "
            + (
                "at this guidance scale the model sees the prompt alone."
                if opened.recipe.guided(math.inf)
                else "this model sees the prompt alone."
            )
        )
    if guidance_scale is not None and not opened.recipe.reads_guidance:
        remarks.append("the guidance scale changes nothing: this model was distilled to do without guidance.")
    with listening() as listener:
        requests = adapters_at(lora or (), listener)
        embeddings = embeddings_at(textual_inversion or (), listener, allow_pickle=allow_pickle)
    if before is not None:
        again = used_again(() if requests else before.adapters, () if embeddings else before.embeddings)
        requests, embeddings = requests or again.adapters, embeddings or again.embeddings
        remarks += again.remarks
    adapters = replace(
        open_adapters(opened, requests, ignore_unmatched=ignore_unmatched),
        embeddings=open_embeddings(opened, embeddings),
    )
    remarks += adapters.notices
    requested = device_request(
        provider=provider,
        device_id=device_id,
        adapter=adapter,
        low_vram=low_vram,
        vram=vram,
        encoder_provider=encoder_provider,
        vae_tiling=vae_tiling,
    )
    refining = demand_refinable(request, opened)
    for read in (request.init_image, request.mask):
        if read is not None:
            initial_image.demand_readable(Path(read))
    metadata = image_file.metadata_of(request, opened, "", adapters)
    paths = image_file.paths_for(destination, metadata, overwrite=overwrite)
    written: list[image_file.WrittenImage] = []
    shown: Preview | None = None
    with saying_what_is_kept(lambda: _kept(written, shown)), listening() as listener:
        for remark in remarks:
            output.say(remark)
        if before is not None and before.fingerprint != opened.fingerprint:
            output.say(f"the image was made with another package than {opened.folder}: it will differ.")
        unused = opened.with_role("encoder") if request.init_image is None else ()
        uses = [Use(package=opened, unused=frozenset(unused))]
        uses += [] if refining is None else [use_of(refining)]
        begun = start.prepare(uses, requested, request.size, listener)
        runner = begun.runner(opened, adapters)
        metadata = replace(metadata, provider=runner.device.provider.name)
        if preview is not None:
            beside = place_for(paths[0].with_stem(f"{paths[0].stem}-preview"))
            shown = Preview(path=beside, every=preview)
            output.say(f"previews: {beside}")
        try:
            with open_refiner(refining, request, begun) as second:
                pipeline = Pipeline(
                    package=opened,
                    runner=runner,
                    listener=listener,
                    refiner=second,
                    tokens=adapters.embeddings.tokens,
                    preview=shown,
                )
                generated = pipeline.generate(request)
        finally:
            runner.close()
        for place, path in enumerate(paths):
            pixels, own = generated.pixels[place], metadata.of_image(place)
            written.append(image_file.write_image(path, pixels, own, overwrite=overwrite))
        if shown is not None:
            with suppress(OSError):  # a viewer on Windows may hold it
                shown.path.unlink(missing_ok=True)
    for image in written:
        if image.remark:
            output.say(image.remark)
    if not as_json:
        with _told_where(written):
            for image in written:
                output.emit(str(image.path))
    output.say(f"{start.summary(runner)}; {generated.total_seconds:.1f} s, seed {request.seed}.")
    if as_json:
        document = {
            "images": [
                {
                    "path": str(image.path),
                    "seed": request.seed + place,
                    "flagged": generated.flagged[place],
                }
                for place, image in enumerate(written)
            ],
            "metadata": image_file.as_document(metadata),
            "ran": start.as_document(runner),
            "seconds": {"denoise": generated.denoise_seconds, "total": generated.total_seconds},
        }
        with _told_where(written):
            output.emit_json(document)
    if any(image.rescued for image in written):
        raise SetupError(
            "generate.output",
            "the images could not be written where they were wanted; they are kept where it says above.",
            "move them, or choose another place with --output next time.",
        )


@contextmanager
def _told_where(written: list[WrittenImage]) -> Iterator[None]:
    """Say where images are should stdout, which the block writes to, take nothing, such as a full disk."""
    try:
        yield
    except OSError:
        output.say(_kept(written, None))
        raise


def _kept(written: list[WrittenImage], shown: Preview | None) -> str:
    if not written:
        if shown is not None and shown.path.is_file():
            return (
                f"No image was written. The last preview is {shown.path}; a later run with the same output "
                "replaces it."
            )
        return "No image was written."
    return f"These images were written: {', '.join(str(image.path) for image in written)}."

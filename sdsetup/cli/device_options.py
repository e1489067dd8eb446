"""The options about where to run, the same for every verb that runs a package."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

if TYPE_CHECKING:
    from sdsetup.runtime.start import DeviceRequest

_PANEL = "Where to run"

ProviderOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--provider",
        metavar="NAME",
        rich_help_panel=_PANEL,
        help="directml, cuda, migraphx, openvino, webgpu, coreml or cpu; without it the best one here.",
    ),
]
DeviceOption: TypeAlias = Annotated[
    int | None,
    typer.Option(
        "--device-id",
        metavar="N",
        rich_help_panel=_PANEL,
        help="The provider's number of the device; on DirectML DXGI's, where 0 drives the first display.",
    ),
]
AdapterOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--adapter",
        metavar="NAME",
        rich_help_panel=_PANEL,
        help='Words of the device\'s name, for example "RX 6700".',
    ),
]
LowVramOption: TypeAlias = Annotated[
    bool | None,
    typer.Option(
        "--low-vram/--no-low-vram",
        rich_help_panel=_PANEL,
        help="Hold one submodel at a time. [default: where all together do not fit]",
    ),
]
VramOption: TypeAlias = Annotated[
    float | None,
    typer.Option(
        "--vram",
        metavar="GIB",
        min=0.5,
        rich_help_panel=_PANEL,
        help="Keep to this much of the device's memory. [default: all of it; if integrated, its share]",
    ),
]
VaeTilingOption: TypeAlias = Annotated[
    bool | None,
    typer.Option(
        "--vae-tiling/--no-vae-tiling",
        rich_help_panel=_PANEL,
        help="Decode and encode in tiles, without seams. [default: where an image does not fit]",
    ),
]
EncoderProviderOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--encoder-provider",
        metavar="NAME",
        rich_help_panel=_PANEL,
        help="Run the text encoders there, such as cpu. [default: cpu where the device is too small]",
    ),
]


def device_request(
    *,
    provider: str | None,
    device_id: int | None,
    adapter: str | None,
    low_vram: bool | None,
    vram: float | None,
    encoder_provider: str | None,
    vae_tiling: bool | None,
) -> DeviceRequest:
    """Put the options of one command together."""
    from sdsetup.runtime.start import DeviceRequest

    return DeviceRequest(
        provider=provider,
        device_id=device_id,
        adapter=adapter,
        low_vram=low_vram,
        vram_bytes=None if vram is None else round(vram * 2**30),
        encoder_provider=encoder_provider,
        vae_tiling=vae_tiling,
    )

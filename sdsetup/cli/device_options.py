"""The options about where to run, the same for every verb that runs a package."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import typer

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
        help="Hold one submodel at a time; by itself on devices under 8 GiB.",
    ),
]

"""What ``sdsetup install`` was asked for, read before there is a command line that could read it.

Standard library only.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sdsetup.bootstrap import command_name
from sdsetup.errors import UsageError

_WITH_VALUE = ("--flavour", "--precision", "--folder", "--images-folder", "--offline", "--bundle", "--report")
_WITHOUT_VALUE = ("--lean", "--torch", "--yes", "-y", "--dry-run", "--json", "--")


@dataclass(frozen=True, kw_only=True)
class InstallOptions:
    """The options of ``install`` that decide what goes into the environment.

    Attributes:
        model: What is converted.
        flavour: Which ONNX Runtime; None takes this machine's.
        lean: Whether torch, diffusers and transformers are left out; None where nothing was said.
        yes: Whether the plan needs no answer.
        dry_run: Whether the plan is all.
        offline: A bundle to install from, without a network.
        bundle: A folder to make a bundle in, instead of converting.
        folder: Where packages and images go.
        images_folder: Where the image goes; None puts it beside the packages.
    """

    model: str = "demo"
    flavour: str | None = None
    lean: bool | None = None
    yes: bool = False
    dry_run: bool = False
    offline: Path | None = None
    bundle: Path | None = None
    folder: Path = Path()
    images_folder: Path | None = None

    @property
    def packages(self) -> Path:
        """The folder of packages."""
        return self.folder / "packages"

    @property
    def images(self) -> Path:
        """The folder of images."""
        return self.images_folder or self.folder / "images"


def read(arguments: Sequence[str]) -> InstallOptions:
    """Read a command line; what is wrong with values, the command line itself tells later.

    Args:
        arguments: What follows the program's name, ``install`` included.

    Raises:
        UsageError: ``install.options``: one is unknown, or two of them exclude each other.
            ``install.folder``: one cannot be written.
    """
    values: dict[str, str] = {}
    plain: list[str] = []
    waiting = ""
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if waiting:
            values[waiting], waiting = argument, ""
        elif name in _WITH_VALUE and equals:
            values[name] = value
        elif name in _WITH_VALUE:
            waiting = name
        elif not argument.startswith("-"):
            plain.append(argument)
        elif argument not in _WITHOUT_VALUE:  # told now: a misspelled --lean would download torch
            raise UsageError(
                "install.options",
                f"install has no option {argument}.",
                f"{command_name.typed()} install --help lists them.",
            )
    if "--lean" in arguments and "--torch" in arguments:
        raise UsageError(
            "install.options", "--lean leaves torch out, --torch asks for it.", "Give one of them."
        )
    lean = True if "--lean" in arguments else False if "--torch" in arguments else None
    offline, bundle = (
        Path(os.path.abspath(Path(values[name]).expanduser())) if values.get(name) else None  # noqa: PTH100
        for name in ("--offline", "--bundle")
    )
    if offline is not None and bundle is not None:
        raise UsageError(
            "install.options",
            "--offline installs from a bundle, --bundle makes one.",
            "Give one of them; a bundle is a folder that can be copied.",
        )
    return InstallOptions(
        model=(plain[1:] or ["demo"])[0],
        flavour=values.get("--flavour"),
        lean=lean,
        yes="--yes" in arguments or "-y" in arguments,
        dry_run="--dry-run" in arguments,
        offline=offline,
        bundle=bundle,
        folder=_folder("--folder", values) or _present_folder(bundle),
        images_folder=_folder("--images-folder", values),
    )


def _present_folder(bundle: Path | None) -> Path:
    """Return the present folder, where packages go unless another is named.

    Raises:
        UsageError: ``install.folder``: there are no packages yet, and none can be written.
    """
    here = Path.cwd()
    if bundle is None and not (here / "packages").exists() and not os.access(here, os.W_OK):
        raise UsageError(
            "install.folder",
            f"packages and images go to the present folder, and you may not write in {here}.",
            "Name a folder of your own with --folder FOLDER.",
        )
    return Path()


def _folder(option: str, values: Mapping[str, str]) -> Path | None:
    """Return a folder that will be written to; None where the option was not given.

    Raises:
        UsageError: ``install.folder``: it cannot be made or written.
    """
    if not values.get(option):
        return None
    try:
        folder = Path(values[option]).expanduser()
    except RuntimeError as error:  # ~NAME of nobody
        raise UsageError(
            "install.folder", f"{option} {values[option]}: {error}", "Name another folder."
        ) from error
    place = Path(os.path.abspath(folder))  # noqa: PTH100 - resolve() would follow links
    there = next((each for each in (place, *place.parents) if os.path.lexists(each)), None)
    hint = "Name another folder."
    if there is None:
        fault = f"there is no {place.anchor}."
    elif not there.is_dir():
        fault = f"{there} is no folder."
    elif not os.access(there, os.W_OK):
        fault, hint = f"you may not write in {there}.", "Name a folder of your own."
    else:
        return folder
    raise UsageError("install.folder", f"{option} {folder}: {fault}", hint)

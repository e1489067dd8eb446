"""Images on disk: PNG files that carry the metadata they were made from."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin, UnidentifiedImageError

from conversions.package.layout import Package
from sdsetup import __version__
from sdsetup.errors import SetupError, UsageError
from sdsetup.imaging.request import Request

_KEYWORD = "sdsetup"


@dataclass(frozen=True, kw_only=True)
class ImageMetadata:
    """How an image was made.

    Attributes:
        request: Everything that was asked for, complete.
        package: The package's folder name.
        fingerprint: SHA-256 of the package's manifest.
        provider: ONNX Runtime's name of the execution provider.
        version: This program's.
    """

    request: Request
    package: str
    fingerprint: str
    provider: str
    version: str = __version__

    def of_image(self, place: int) -> ImageMetadata:
        """Return the metadata that makes only image ``place`` of a batch."""
        return replace(self, request=replace(self.request, seed=self.request.seed + place, images=1))

    def as_json(self) -> str:
        """Write it as one line of JSON."""
        return json.dumps(asdict(self), ensure_ascii=False, sort_keys=True)


def metadata_of(request: Request, package: Package, provider: str) -> ImageMetadata:
    """Note how an image is made."""
    return ImageMetadata(
        request=request, package=package.name, fingerprint=package.fingerprint, provider=provider
    )


def read_metadata(path: Path) -> ImageMetadata:
    """Read the metadata out of an image.

    Raises:
        SetupError: The file cannot be read, is no image, or carries no metadata.
    """
    try:
        with Image.open(path) as image:
            image.load()
            text = image.info.get(_KEYWORD)
    except (OSError, SyntaxError, UnidentifiedImageError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise SetupError(
            "image.unreadable",
            f"{path} cannot be read as an image: {reason}.",
            "give --from a PNG that sdsetup generate wrote.",
        ) from error
    if text is None:
        raise SetupError(
            "image.no_recipe",
            f"{path} carries no metadata: it was not made by sdsetup, or a program that saved it dropped it.",
            "give a prompt and a seed instead.",
        )
    try:
        document = json.loads(str(text))
        known = {field.name for field in fields(Request)}
        request = Request(**{k: v for k, v in document["request"].items() if k in known})
        return ImageMetadata(**{**document, "request": request})
    except (ValueError, TypeError, KeyError) as error:
        raise SetupError(
            "image.no_recipe",
            f"the metadata in {path} was written by another version of sdsetup.",
            "give a prompt and a seed instead.",
        ) from error


def write_image(path: Path, pixels: NDArray[np.uint8], metadata: ImageMetadata) -> None:
    """Write one PNG, whole or not at all.

    Args:
        path: Where to.
        pixels: uint8 ``[height, width, 3]``.
        metadata: What it carries.

    Raises:
        SetupError: It cannot be written there.
    """
    notes = PngImagePlugin.PngInfo()
    notes.add_itxt(_KEYWORD, metadata.as_json())
    notes.add_text("Software", f"sdsetup {__version__}")
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        Image.fromarray(pixels).save(unfinished, format="PNG", pnginfo=notes)
        unfinished.replace(path)
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        unfinished.unlink(missing_ok=True)


def paths_for(output: Path | None, metadata: ImageMetadata) -> tuple[Path, ...]:
    """Decide where a batch goes, and see before any work that it can be written there.

    A file that was named is replaced; names of our own making never collide with what is there.

    Args:
        output: A .png file, a folder, or None for the current folder.
        metadata: The batch's.

    Raises:
        UsageError: The name is that of another kind of image.
        SetupError: It cannot be written there.
    """
    count = metadata.request.images
    if output is not None and output.suffix and not output.is_dir():
        if output.suffix.casefold() != ".png":
            raise UsageError(
                "generate.output",
                f"--output {output}: images are written as PNG.",
                f"use {output.with_suffix('.png').name}.",
            )
        names = [output.stem if count == 1 else f"{output.stem}-{place + 1}" for place in range(count)]
        paths = [output.with_name(f"{name}.png") for name in names]
    else:
        folder = output or Path()
        seeds = range(metadata.request.seed, metadata.request.seed + count)
        paths = [_free(folder, f"{metadata.package}-{seed}") for seed in seeds]
    folder = paths[0].parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".sdsetup-{os.getpid()}.part"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise _unwritable(paths[0], error) from error
    if (taken := next((path for path in paths if path.is_dir()), None)) is not None:
        raise UsageError("generate.output", f"--output {taken} is a folder.", "add a file name to it.")
    return tuple(paths)


def find_package(metadata: ImageMetadata, image: Path) -> Path:
    """Look for the package that an image was made from, here and beside the image.

    Raises:
        UsageError: It is in neither place.
    """
    for folder in (Path(), image.parent, image.parent.parent):
        if (folder / metadata.package / "manifest.json").is_file():
            return folder / metadata.package
    raise UsageError(
        "image.package",
        f"{image} was made with a package called {metadata.package}, which is not in this folder.",
        f"name it: sdsetup generate PATH/{metadata.package} --from {image}",
    )


def as_document(metadata: ImageMetadata) -> Mapping[str, Any]:
    """Return the metadata as plain values for JSON."""
    return asdict(metadata)


def _free(folder: Path, stem: str) -> Path:
    path, count = folder / f"{stem}.png", 1
    while path.exists():
        count += 1
        path = folder / f"{stem}-{count}.png"
    return path


def _unwritable(path: Path, error: OSError) -> SetupError:
    reason = error.strerror or str(error)
    return SetupError(
        "generate.output",
        f"{path} cannot be written: {reason}.",
        "choose another place with --output.",
    )

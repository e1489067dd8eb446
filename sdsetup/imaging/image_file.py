"""Images on disk: PNG files that carry the metadata they were made from."""

from __future__ import annotations

import contextlib
import io
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import platformdirs
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from conversions.package.layout import Package
from sdsetup import __version__, new_file, os_errors
from sdsetup.bootstrap.command_name import quoted
from sdsetup.errors import SetupError, UsageError
from sdsetup.imaging.read_image import reading
from sdsetup.imaging.request import Request
from sdsetup.redaction import redact_document
from sdsetup.runtime.adapters import AppliedAdapter, PackageAdapters
from sdsetup.runtime.textual_inversion import AppliedEmbedding

_KEYWORD = "sdsetup"
# Chunks, their checksums and the program's name.
_PNG_OVERHEAD_BYTES = 16384
# File systems take 255 bytes; some of them less, and a number may be added.
_SAFE_NAME_BYTES = 120


@dataclass(frozen=True, kw_only=True)
class ImageMetadata:
    """How an image was made.

    Attributes:
        request: Everything that was asked for, complete.
        package: The package's folder name.
        fingerprint: SHA-256 of the package's manifest.
        provider: ONNX Runtime's name of the execution provider.
        version: This program's.
        adapters: What was merged into the weights, in order.
        embeddings: Textual inversions that the text encoders got, in order.
    """

    request: Request
    package: str
    fingerprint: str
    provider: str
    version: str = __version__
    adapters: tuple[AppliedAdapter, ...] = ()
    embeddings: tuple[AppliedEmbedding, ...] = ()

    def of_image(self, place: int) -> ImageMetadata:
        """Return the metadata that makes only image ``place`` of a batch."""
        return replace(self, request=replace(self.request, seed=self.request.seed + place, images=1))

    def as_json(self) -> str:
        """Write it as one line of JSON, without tokens: images are passed on."""
        text = json.dumps(redact_document(asdict(self)), ensure_ascii=False, sort_keys=True)
        return text.encode("utf-8", "replace").decode("utf-8")


def _of_types(kind: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that ``kind`` has fields for.

    Raises:
        TypeError: One is of another type than its field.
    """
    hints = get_type_hints(kind)
    known = {name: value for name, value in values.items() if name in hints}
    for name, value in known.items():
        whole = isinstance(value, int) and not isinstance(value, bool)
        if not isinstance(value, hints[name]) and not (whole and isinstance(0.0, hints[name])):
            raise TypeError(f"{name} is a {type(value).__name__}")
    return known


def metadata_of(
    request: Request, package: Package, provider: str, adapters: PackageAdapters | None = None
) -> ImageMetadata:
    """Note how an image is made."""
    adapters = adapters or PackageAdapters()
    return ImageMetadata(
        request=request,
        package=package.name,
        fingerprint=package.fingerprint,
        provider=provider,
        adapters=adapters.applied,
        embeddings=adapters.embeddings.applied,
    )


def read_metadata(path: Path) -> ImageMetadata:
    """Read the metadata out of an image.

    Raises:
        SetupError: The file cannot be read, is no image, or carries no metadata.
    """
    with reading(path, "give --from a PNG that sdsetup generate wrote.") as image:
        text = image.info.get(_KEYWORD)
    if text is None:
        raise SetupError(
            "image.no_recipe",
            f"{path} carries no metadata: it was not made by sdsetup, or a program that saved it dropped it.",
            "give a prompt and a seed instead.",
        )
    try:
        document = json.loads(str(text))
        request = Request(**_of_types(Request, document["request"]))
        adapters = tuple(
            AppliedAdapter(**_of_types(AppliedAdapter, each)) for each in document.pop("adapters", ())
        )
        embeddings = tuple(
            AppliedEmbedding(**_of_types(AppliedEmbedding, each)) for each in document.pop("embeddings", ())
        )
        others = _of_types(ImageMetadata, {**document, "request": request})
        return ImageMetadata(**others, adapters=adapters, embeddings=embeddings)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise SetupError(
            "image.no_recipe",
            f"the metadata in {path} was written by another version of sdsetup.",
            "give a prompt and a seed instead.",
        ) from error


@dataclass(frozen=True, kw_only=True)
class WrittenImage:
    """Where an image ended up.

    Attributes:
        path: The file.
        remark: Why it is not the file that was wanted, in a sentence; empty when it is.
        rescued: Whether the wanted place failed, so that the image lies in quite another one.
    """

    path: Path
    remark: str = ""
    rescued: bool = False


def write_image(
    path: Path, pixels: NDArray[np.uint8], metadata: ImageMetadata, *, overwrite: bool = False
) -> WrittenImage:
    """Write one PNG, whole or not at all, and lose neither it nor a file that is there.

    Where another program took the name meanwhile, the image gets the next free one; where the place fails, it
    goes to the current folder, the user's or the one for temporary files.

    Args:
        path: Where to.
        pixels: uint8 ``[height, width, 3]``.
        metadata: What it carries.
        overwrite: Whether a file of that name is replaced.

    Raises:
        SetupError: It can be written nowhere.
    """
    notes = PngImagePlugin.PngInfo()
    notes.add_itxt(_KEYWORD, metadata.as_json())
    notes.add_text("Software", f"sdsetup {__version__}")
    encoded = io.BytesIO()  # Pillow keeps the number of a system's error to itself
    Image.fromarray(pixels).save(encoded, format="PNG", pnginfo=notes)
    content = encoded.getvalue()
    try:
        if overwrite:
            new_file.write(path, content, overwrite=True)
            return WrittenImage(path=path)
        written = new_file.write_beside(path, content)
    except OSError as error:
        failure = _unwritable(path, error)
        return _rescue(path, content, failure)
    remark = f"{path} was taken meanwhile; the image is {written}." if written != path else ""
    return WrittenImage(path=written, remark=remark)


def _rescue(path: Path, content: bytes, failure: SetupError) -> WrittenImage:
    """Write an image somewhere, since its place failed."""
    own = platformdirs.user_data_path("sdsetup", appauthor=False) / "images"
    # A name that the wanted place refused may be refused elsewhere too.
    name = path.name if len(os.fsencode(path.name)) <= _SAFE_NAME_BYTES else "image.png"
    for folder in (Path(), own, Path(tempfile.gettempdir())):
        with contextlib.suppress(OSError):
            written = new_file.write_beside(folder.absolute() / name, content)
            return WrittenImage(
                path=written,
                remark=f"{failure.message} The image is kept as {written}.",
                rescued=True,
            )
    raise failure


def paths_for(output: Path | None, metadata: ImageMetadata, *, overwrite: bool = False) -> tuple[Path, ...]:
    """Decide where a batch goes, and see before any work that it can be written there.

    Names of our own making never collide with what is there; a name that was given must be free.

    Args:
        output: A .png file, a folder, or None for the current folder.
        metadata: The batch's.
        overwrite: Whether files that are there are replaced.

    Raises:
        UsageError: The name is that of another kind of image, or taken.
        SetupError: It cannot be written there.
    """
    try:
        paths = _names_for(output, metadata, overwrite=overwrite)
        new_file.demand_room(paths, _most_bytes(metadata.request))
    except OSError as error:
        raise _unwritable(output or Path(), error) from error
    return tuple(paths)


def find_image_of(folder: Path, stem: str, fingerprint: str) -> Path | None:
    """Look among a folder's files for an image that a package made.

    Args:
        folder: Where to look.
        stem: What their names are: this, or this and a number.
        fingerprint: The package's.
    """
    for path in new_file.names_after(folder / f"{stem}.png"):
        if not path.is_file():
            return None
        with contextlib.suppress(SetupError):  # an image of somebody else's
            if read_metadata(path).fingerprint == fingerprint:
                return path
    return None


def find_package(metadata: ImageMetadata, image: Path) -> Path:
    """Look for the package that an image was made from, here and beside the image.

    Raises:
        UsageError: It is in neither place.
    """
    named = metadata.package == Path(metadata.package).name  # no path that somebody wrote into an image
    around = (Path(), image.parent, image.parent.parent)
    for folder in (each / inside for each in around for inside in ("", "packages")) if named else ():
        if (folder / metadata.package / "manifest.json").is_file():
            return folder / metadata.package
    raise UsageError(
        "image.package",
        f"{image} was made with a package called {metadata.package}, which is neither here nor beside it.",
        f"name it: sdsetup generate {quoted(f'PATH/{metadata.package}')} --from {quoted(str(image))}",
    )


def as_document(metadata: ImageMetadata) -> Mapping[str, Any]:
    """Return the metadata as plain values for JSON."""
    return asdict(metadata)


def _names_for(output: Path | None, metadata: ImageMetadata, *, overwrite: bool) -> list[Path]:
    count = metadata.request.images
    if output is None or not output.suffix or output.is_dir():
        folder = output or Path()
        seeds = range(metadata.request.seed, metadata.request.seed + count)
        paths = [folder / f"{metadata.package}-{seed}.png" for seed in seeds]
        return paths if overwrite else [new_file.free_name(path) for path in paths]
    demand_png(output)
    names = [output.stem if count == 1 else f"{output.stem}-{place + 1}" for place in range(count)]
    paths = [output.with_name(f"{name}.png") for name in names]
    _demand_free(paths, overwrite=overwrite)
    return paths


def demand_png(output: Path) -> None:
    """See that an image can be written as what it is called.

    Raises:
        UsageError: ``generate.output``: a file of another kind is named.
    """
    if output.suffix and output.suffix.casefold() != ".png" and not output.is_dir():
        raise UsageError(
            "generate.output",
            f"--output {output}: images are written as PNG.",
            f"use {output.with_suffix('.png').name}.",
        )


def _demand_free(paths: list[Path], *, overwrite: bool) -> None:
    if (folder := next((path for path in paths if path.is_dir()), None)) is not None:
        raise UsageError("generate.output", f"--output {folder} is a folder.", "add a file name to it.")
    taken = next((path for path in paths if os.path.lexists(path)), None)
    if taken is not None and not overwrite:
        raise UsageError(
            "generate.exists",
            f"{taken} exists already.",
            "add --overwrite to replace it, or choose another name with --output.",
        )


def _most_bytes(request: Request) -> int:
    """Return the size of a PNG that cannot be compressed, with its metadata."""
    # A row has a byte for its filter.
    pixels = (3 * (request.width or 0) + 1) * (request.height or 0)
    text = 4 * len(request.prompt + request.negative_prompt)
    return pixels + pixels // 256 + text + _PNG_OVERHEAD_BYTES


def _unwritable(path: Path, error: OSError) -> SetupError:
    explained = os_errors.explain(error)
    return SetupError(
        "generate.output",
        f"{path if path != Path() else Path.cwd()} cannot be written: {explained.message}",
        f"choose another place with --output; or {explained.hint}",
    )

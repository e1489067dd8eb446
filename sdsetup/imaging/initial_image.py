"""Images that a generation starts from, and masks of what to change, read as diffusers reads them."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from conversions.recipe import Floats, ImageSize, InitialImage
from sdsetup.imaging.read_image import reading
from sdsetup.imaging.schedulers import Scheduler

_HALF = 0.5


def fitted_size(path: Path, native: ImageSize, multiple: int) -> ImageSize:
    """Return the size with an image's proportions and the area that the checkpoint was trained on.

    Args:
        path: The image.
        native: The size that the checkpoint was trained on.
        multiple: Width and height become multiples of this.

    Raises:
        SetupError: ``image.unreadable``.
    """
    width, height = _open(path).size
    factor = math.sqrt(native.width * native.height / (width * height))
    return ImageSize(
        width=max(multiple, round(width * factor / multiple) * multiple),
        height=max(multiple, round(height * factor / multiple) * multiple),
    )


def demand_readable(path: Path) -> None:
    """See before any work that an image can be read.

    Raises:
        SetupError: ``image.unreadable``.
    """
    _open(path)


def read_pixels(path: Path, size: ImageSize) -> Floats:
    """Read an image, float32 ``[1, 3, height, width]`` from -1 to 1, resized to a size.

    Source: VaeImageProcessor.preprocess of diffusers: Lanczos, then scaled to -1 to 1.

    Raises:
        SetupError: ``image.unreadable``.
    """
    pixels = _resized(_open(path).convert("RGB"), size).astype(np.float32) / np.float32(255)
    scaled: Floats = (pixels.transpose(2, 0, 1)[None] * np.float32(2)) - np.float32(1)
    return scaled


def read_mask(path: Path, size: ImageSize) -> Floats:
    """Read a mask, float32 ``[1, 1, height, width]``: 1 where the image is made anew, else 0.

    Source: the mask processor of diffusers' inpainting pipelines: grey, Lanczos, cut at one half.

    Raises:
        SetupError: ``image.unreadable``.
    """
    grey = _resized(_open(path).convert("L"), size).astype(np.float32) / np.float32(255)
    return (grey >= _HALF).astype(np.float32)[None, None]


def _resized(image: Image.Image, size: ImageSize) -> NDArray[np.uint8]:
    if image.size != (size.width, size.height):
        image = image.resize((size.width, size.height), Image.Resampling.LANCZOS)
    return np.asarray(image)


def blend(sample: Floats, initial: InitialImage, scheduler: Scheduler, start: Floats, index: int) -> Floats:
    """Put the initial image, as noisy as the sample is, back where nothing is to change.

    Source: the loop of diffusers' inpainting pipelines, for denoisers that do not read the mask.
    """
    assert initial.mask is not None
    assert initial.latents is not None
    kept = scheduler.noised(initial.latents, start, index)
    blended: Floats = (1 - initial.mask) * kept + initial.mask * sample
    return blended


def _open(path: Path) -> Image.Image:
    """Open an image, turned as its camera notes say."""
    with reading(path, "give a PNG or a JPEG.") as image:
        return ImageOps.exif_transpose(image)

"""Previews of images that are being made, without the decoder where the colours of the latents are known."""

from __future__ import annotations

import io
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import psutil
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from conversions.recipe import LatentSpace, Recipe, Run
from sdsetup import new_file
from sdsetup.errors import UsageError
from sdsetup.imaging.pixels import pixels_of
from sdsetup.imaging.schedulers import Floats

logger = logging.getLogger(__name__)

# Where a preview names the process that writes it, among the texts of a PNG file.
_WRITER = "sdsetup preview of process"
_LONGEST_PID = 10
"""Digits; more is no process."""

# Red, green and blue that each channel of the latents adds, and what they start from; colours go from -1 to
# 1. By channels and scaling factor: autoencoders of one space share them. They were fitted to the decoders'
# images by others; Source: comfy/latent_formats.py of ComfyUI at 040a324, classes SD15, SDXL, SD3 and Flux.
_Colour: TypeAlias = tuple[float, float, float]
_COLOURS: dict[tuple[int, float], tuple[tuple[_Colour, ...], _Colour]] = {
    (4, 0.18215): (
        (
            (0.3512, 0.2297, 0.3227),
            (0.3250, 0.4974, 0.2350),
            (-0.2829, 0.1762, 0.2721),
            (-0.2120, -0.2616, -0.7177),
        ),
        (0.0, 0.0, 0.0),
    ),
    (4, 0.13025): (
        (
            (0.3651, 0.4232, 0.4341),
            (-0.2533, -0.0042, 0.1068),
            (0.1076, 0.1111, -0.0362),
            (-0.3165, -0.2492, -0.2188),
        ),
        (0.1084, -0.0175, -0.0011),
    ),
    (16, 1.5305): (
        (
            (-0.0922, -0.0175, 0.0749),
            (0.0311, 0.0633, 0.0954),
            (0.1994, 0.0927, 0.0458),
            (0.0856, 0.0339, 0.0902),
            (0.0587, 0.0272, -0.0496),
            (-0.0006, 0.1104, 0.0309),
            (0.0978, 0.0306, 0.0427),
            (-0.0042, 0.1038, 0.1358),
            (-0.0194, 0.0020, 0.0669),
            (-0.0488, 0.0130, -0.0268),
            (0.0922, 0.0988, 0.0951),
            (-0.0278, 0.0524, -0.0542),
            (0.0332, 0.0456, 0.0895),
            (-0.0069, -0.0030, -0.0810),
            (-0.0596, -0.0465, -0.0293),
            (-0.1448, -0.1463, -0.1189),
        ),
        (0.2394, 0.2135, 0.1925),
    ),
    (16, 0.3611): (
        (
            (-0.0346, 0.0244, 0.0681),
            (0.0034, 0.0210, 0.0687),
            (0.0275, -0.0668, -0.0433),
            (-0.0174, 0.0160, 0.0617),
            (0.0859, 0.0721, 0.0329),
            (0.0004, 0.0383, 0.0115),
            (0.0405, 0.0861, 0.0915),
            (-0.0236, -0.0185, -0.0259),
            (-0.0245, 0.0250, 0.1180),
            (0.1008, 0.0755, -0.0421),
            (-0.0515, 0.0201, 0.0011),
            (0.0428, -0.0012, -0.0036),
            (0.0817, 0.0765, 0.0749),
            (-0.1264, -0.0522, -0.1103),
            (-0.0280, -0.0881, -0.0499),
            (-0.1262, -0.0982, -0.0778),
        ),
        (-0.0329, -0.0718, -0.0851),
    ),
}


@dataclass(frozen=True, kw_only=True)
class Preview:
    """Where previews go, and how often.

    Attributes:
        path: A PNG file, replaced by each preview.
        every: Steps from one to the next.
    """

    path: Path
    every: int

    def wanted(self, step: int) -> bool:
        """Say whether a step, counted from 1, is shown."""
        return step % self.every == 0

    def show(self, latents: Floats, recipe: Recipe, run: Run) -> None:
        """Write what latents would become; a preview that cannot be made or written is no reason to stop.

        Args:
            latents: float32 ``[images, channels, height, width]``, as the denoiser has them.
            recipe: Of the family.
            run: Runs the decoder, where the colours of the latents are not known.
        """
        pixels, scale = approximate(latents, recipe.latents), recipe.latents.downscale
        if pixels is None:
            decoded = [recipe.decode(run, each[None]) for each in latents]
            if not all(np.isfinite(each).all() for each in decoded):
                return
            pixels, scale = np.concatenate([pixels_of(each) for each in decoded]), 1
        try:
            self.write(pixels, scale)
        except OSError as error:
            logger.info("the preview %s was not written: %s", self.path, error)

    def write(self, pixels: NDArray[np.uint8], scale: int) -> None:
        """Write the images of a batch beside each other.

        Args:
            pixels: uint8 ``[images, height, width, 3]``, of any size.
            scale: What width and height are multiplied by.

        Raises:
            OSError: The file cannot be written, as while a viewer on Windows holds it.
        """
        row = Image.fromarray(np.concatenate(list(pixels), axis=1))
        row = row.resize((row.width * scale, row.height * scale), Image.Resampling.BICUBIC)
        encoded = io.BytesIO()
        notes = PngInfo()
        notes.add_text(_WRITER, str(os.getpid()))
        row.save(encoded, format="PNG", compress_level=1, pnginfo=notes)
        new_file.write(self.path, encoded.getvalue(), overwrite=True)


def place_for(wanted: Path) -> Path:
    """Return where previews can go: a name that is free, or has a preview of a run that has ended.

    Args:
        wanted: The name that is tried first.
    """
    return next(name for name in new_file.names_after(wanted) if not os.path.lexists(name) or _is_left(name))


def _is_left(path: Path) -> bool:
    """Say whether a file is a preview that nobody writes any more: its run was interrupted or failed."""
    try:
        with Image.open(path) as image:
            writer = str(image.info.get(_WRITER, ""))
    # What Pillow raises for files that are no image, damaged, or huge.
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return False
    return writer.isdecimal() and len(writer) <= _LONGEST_PID and not psutil.pid_exists(int(writer))


def demand_interval(every: int) -> None:
    """Refuse a number of steps that is none.

    Raises:
        UsageError: It is below 1.
    """
    if every < 1:
        raise UsageError(
            "generate.preview",
            f"--preview {every} is out of range: it is a number of steps, 1 or more.",
            "--preview 5 shows every fifth step.",
        )


def approximate(latents: Floats, space: LatentSpace) -> NDArray[np.uint8] | None:
    """Return the colours of latents, a pixel each.

    Args:
        latents: float32 ``[images, channels, height, width]``, as the denoiser has them.
        space: Theirs.

    Returns:
        uint8 ``[images, height, width, 3]``; None where the space's colours are not known.
    """
    known = _COLOURS.get((space.channels, round(space.scaling, 5)))
    if known is None:
        return None
    factors, start = (np.array(each, np.float32) for each in known)
    colours = np.einsum("nchw,ck->nhwk", latents, factors) + start
    pixels: NDArray[np.uint8] = np.rint(np.clip((colours + 1) * np.float32(127.5), 0, 255)).astype(np.uint8)
    return pixels

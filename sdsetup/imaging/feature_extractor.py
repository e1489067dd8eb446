"""Preprocess images for the safety checker's CLIP vision model, with Pillow and numpy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sdsetup.imaging.schedulers import Floats

# Source: Radford et al. 2021 (CLIP), the mean and deviation of its training images; transformers 5,
# ``image_utils.py``, OPENAI_CLIP_MEAN and OPENAI_CLIP_STD.
_MEAN = (0.48145466, 0.4578275, 0.40821073)
_DEVIATION = (0.26862954, 0.26130258, 0.27577711)
_SIDE = 224


def _side(value: Any, *names: str) -> int:
    """Read a size given as a number (old configurations) or an object (new ones)."""
    if isinstance(value, Mapping):
        return int(next((value[name] for name in names if value.get(name)), _SIDE))
    return int(value or _SIDE)


def extract(images: NDArray[np.uint8], config: Mapping[str, Any]) -> Floats:
    """Resize, crop and normalise images.

    Args:
        images: uint8 ``[batch, height, width, 3]``.
        config: The package's ``preprocessor_config.json``.

    Returns:
        float32 ``[batch, 3, side, side]``, side being 224 in CLIP.
    """
    side = _side(config.get("size"), "shortest_edge", "height")
    crop = _side(config.get("crop_size"), "height")
    mean = np.array(config.get("image_mean") or _MEAN, dtype=np.float32)
    deviation = np.array(config.get("image_std") or _DEVIATION, dtype=np.float32)
    resample = Image.Resampling(int(config.get("resample", Image.Resampling.BICUBIC)))
    rows = []
    for pixels in images:
        image = Image.fromarray(pixels)
        # The shorter side becomes ``side``; the longer one is truncated, not rounded.
        # Source: transformers 5, ``get_resize_output_image_size``.
        short = min(image.size)
        width, height = (int(side * edge / short) for edge in image.size)
        image = image.resize((width, height), resample)
        left, top = (width - crop) // 2, (height - crop) // 2
        image = image.crop((left, top, left + crop, top + crop))
        scaled = np.asarray(image, dtype=np.float32) / np.float32(255)
        rows.append((scaled - mean) / deviation)
    return np.ascontiguousarray(np.stack(rows).transpose(0, 3, 1, 2), dtype=np.float32)

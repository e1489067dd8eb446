"""Open images that people name, whoever wrote them."""

from __future__ import annotations

import errno
import stat
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from sdsetup.errors import SetupError

# What Pillow raises for files that are none of its own, are damaged or would fill the memory.
_UNREADABLE = (
    *(OSError, SyntaxError, ValueError, EOFError, OverflowError, struct.error, zlib.error),
    *(UnidentifiedImageError, Image.DecompressionBombError, MemoryError),
)


@contextmanager
def reading(path: Path, hint: str) -> Iterator[Image.Image]:
    """Open an image whose pixels and notes are read.

    Args:
        path: The file.
        hint: What to give instead where it cannot be read.

    Raises:
        SetupError: ``image.unreadable``; it is no image, damaged, or far too large.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # reading a pipe or a device would never end
            raise OSError(errno.EINVAL, "it is no ordinary file")
        with Image.open(path) as image:
            image.load()
            yield image
    except FileNotFoundError as error:
        raise SetupError(
            "image.unreadable", f"there is no file {path}.", f"check the spelling; {hint}"
        ) from error
    except _UNREADABLE as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise SetupError("image.unreadable", f"{path} cannot be read as an image: {reason}.", hint) from error

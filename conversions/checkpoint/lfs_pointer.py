"""git-lfs pointer files: what a clone holds in place of large files when git-lfs did not fetch them."""

from __future__ import annotations

import re

from conversions.checkpoint.storage import Storage
from conversions.errors import ConversionError

# Source: the git-lfs specification, docs/spec.md, "The Pointer": the first line, and less than 1024 bytes.
_FIRST_LINE = b"version https://git-lfs.github.com/spec/v1"
_LONGEST_BYTES = 1024
_SIZE = re.compile(rb"^size (\d+)\r?$", re.MULTILINE)


def is_pointer(content: bytes) -> bool:
    """Say whether a file is a pointer; its first 1024 bytes are enough to tell."""
    return content.startswith(_FIRST_LINE)


def is_pointer_file(storage: Storage, name: str) -> bool:
    """Say whether a file of a checkpoint is a pointer; reads nothing of a file that is too large for one."""
    size = storage.size_bytes(name)
    return len(_FIRST_LINE) <= size < _LONGEST_BYTES and is_pointer(storage.read(name))


def pointer_error(label: str, content: bytes) -> ConversionError:
    """Return the error for a pointer.

    Args:
        label: The file, as a person knows it.
        content: What the file holds.
    """
    size = _SIZE.search(content)
    real = f" of {int(size[1]):,} bytes" if size else ""
    return ConversionError(
        "checkpoint.lfs_pointer",
        f"{label} is a git-lfs pointer: the clone holds the address of the file{real}, not the file.",
        "Run `git lfs install` and `git lfs pull` in that folder, or give the model's name OWNER/NAME "
        "in place of the folder to download it.",
    )

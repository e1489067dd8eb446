"""The one reader of a checkpoint's and a package's small JSON files."""

from __future__ import annotations

import errno
import json
import re
import stat
from pathlib import Path
from typing import Any

from conversions.checkpoint.lfs_pointer import is_pointer, pointer_error
from conversions.checkpoint.storage import Storage
from conversions.errors import ConversionError

# The largest small file that is published: Gemma's tokenizer.json has 34 MB.
_LARGEST_BYTES = 128 << 20
_ESCAPED_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_AGAIN = "Download or copy this file again."


def read_object(storage: Storage, name: str) -> dict[str, Any]:
    """Read a JSON object from a file of a checkpoint; see ``parse_object``."""
    label = f"{storage.label}/{name}"
    _check_size(label, storage.size_bytes(name), _AGAIN)
    return parse_object(storage.read(name), label)


def read_object_file(path: Path, *, hint: str = _AGAIN) -> dict[str, Any]:
    """Read a JSON object from a file; see ``parse_object``.

    Raises:
        ConversionError: Also when the file is missing or cannot be read.
    """
    return parse_object(read_bytes(path, hint=hint), str(path), hint=hint)


def read_bytes(path: Path, *, hint: str = _AGAIN) -> bytes:
    """Read a small file whole.

    Raises:
        ConversionError: ``checkpoint.unreadable`` or ``checkpoint.lfs_pointer``.
    """
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):  # reading a pipe or a device would never end
            raise OSError(errno.EINVAL, "it is no ordinary file")
        _check_size(str(path), found.st_size, hint)
        content = path.read_bytes()
    except OSError as error:
        raise ConversionError(
            "checkpoint.unreadable", f"{path} cannot be read: {error.strerror or error}.", hint
        ) from error
    if is_pointer(content):
        raise pointer_error(str(path), content)
    return content


def parse_object(content: bytes, label: str, *, hint: str = _AGAIN) -> dict[str, Any]:
    """Parse a JSON object.

    UTF-8, with or without a byte order mark, UTF-16 and UTF-32 are read, as Windows' editors and shells write
    them. ``NaN`` and ``Infinity`` are read, since Python's and so diffusers' writer writes them (schedulers
    have ``"lambda_min_clipped": -Infinity``); whether a field may be infinite is for its reader to judge.

    Args:
        content: The file.
        label: What to call it in messages.
        hint: What to do when it cannot be used.

    Raises:
        ConversionError: ``checkpoint.lfs_pointer``, or ``checkpoint.corrupt`` for what is no JSON object, has
            one name twice with different values, half a surrogate pair, or is nested too deeply.
    """
    if is_pointer(content):
        raise pointer_error(label, content)
    text, reason = "", ""
    document: Any = None
    try:
        text = content.decode(json.detect_encoding(content)).removeprefix("\ufeff")
        document = json.loads(text, object_pairs_hook=_without_duplicates)
    except RecursionError:
        reason = "is nested too deeply"
    except UnicodeDecodeError as error:
        reason = f"is not UTF-8 text (byte {error.start})"
    except json.JSONDecodeError as error:
        reason = "is empty" if not text.strip("\0 \t\r\n") else f"is not valid JSON ({error})"
    except ValueError as error:
        reason = f"is not valid JSON ({error})"
    if not reason and not isinstance(document, dict):
        reason = "does not hold a JSON object"
    if not reason and _ESCAPED_SURROGATE.search(text) and not _is_encodable(document):
        reason = "holds a lone surrogate, half of a character that no file name or text can hold"
    if reason:
        raise ConversionError("checkpoint.corrupt", f"{label} {reason}.", hint)
    assert isinstance(document, dict)
    return document


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse a name that comes twice with different values: readers disagree on which one counts."""
    table = dict(pairs)
    if len(table) < len(pairs):
        for name, value in pairs:
            if table[name] != value:
                raise ValueError(f"{name!r} comes twice, with different values")
    return table


def _is_encodable(document: Any) -> bool:
    try:
        json.dumps(document, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _check_size(label: str, size_bytes: int, hint: str) -> None:
    if size_bytes > _LARGEST_BYTES:
        raise ConversionError(
            "checkpoint.corrupt",
            f"{label} has {size_bytes:,} bytes, too many for a configuration.",
            hint,
        )

"""Benchmarks as rows: one for people to post, or two beside each other."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sdsetup.disk_space import human_size
from sdsetup.errors import UsageError

Row = tuple[str, str, str, str]
"""A label, this benchmark's value, the other's and their ratio; the last two are empty without another."""

Document = Mapping[str, Any]


def _seconds(value: float) -> str:
    return f"{value:.3f} s" if value < 1 else f"{value:.2f} s"


_MEASURED: tuple[tuple[str, str, Callable[[Any], str]], ...] = (
    ("a step", "seconds_per_step", _seconds),
    ("an image", "seconds_per_image", _seconds),
    ("first image", "first_image_seconds", _seconds),
    ("peak RAM", "peak_ram_bytes", human_size),
    ("peak VRAM", "peak_vram_bytes", human_size),
)
_ABOUT = ("device", "provider", "package", "precision", "onnxruntime", "sdsetup", "system", "processor")


def read(path: Path) -> Document:
    """Read what ``sdsetup benchmark --json`` printed.

    Raises:
        UsageError: ``benchmark.against``: the file is something else.
    """
    try:
        # As bytes: Windows PowerShell's > writes UTF-16, which json tells apart.
        document = json.loads(path.read_bytes())
        rows(document)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            "benchmark.against",
            f"{path} is not what `sdsetup benchmark --json` prints ({type(error).__name__}).",
            "sdsetup benchmark PACKAGE --json > before.json writes such a file.",
        ) from error
    return dict(document)


def rows(this: Document, other: Document | None = None) -> Sequence[Row]:
    """Return what was measured, and about what, as rows of a table.

    Args:
        this: A benchmark, as :func:`read` returns it.
        other: Another to compare with; the ratio is this one's number by the other's.
    """
    both = [this] if other is None else [this, other]
    found = [
        ("images", *(_described(each["request"]) for each in both)),
        *((name, *(str(each["machine"].get(name, "")) for each in both)) for name in _ABOUT),
    ]
    made = [_filled(each) for each in found]
    for label, name, shown in _MEASURED:
        values = [each[name] for each in both]
        texts = ["not known" if value is None else shown(value) for value in values]
        ratio = "" if other is None or None in values or not values[1] else f"{values[0] / values[1]:.2f}"
        made.append(_filled((label, *texts), ratio))
    return made


def as_markdown(this: Document, other: Document | None = None) -> str:
    """Return the rows as a Markdown table, to be posted."""
    heading: Row = ("", "this", "" if other is None else "other", "" if other is None else "this / other")
    width = 2 if other is None else 4
    lines = [heading[:width], ("---",) * width, *(row[:width] for row in rows(this, other))]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _described(request: Mapping[str, Any]) -> str:
    return f"{request['images']} of {request['width']}x{request['height']}, {request['steps']} steps"


def _filled(cells: Sequence[str], ratio: str = "") -> Row:
    label, this, *other = cells
    return label, this, other[0] if other else "", ratio

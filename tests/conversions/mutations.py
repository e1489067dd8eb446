"""Checkpoints with one field of one small file changed at random into what does not belong there."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

_FILES = (
    *("unet/config.json",) * 4,
    *("vae/config.json",) * 3,
    *("text_encoder/config.json",) * 3,
    *("safety_checker/config.json",) * 2,
    "model_index.json",
)
_VALUES = (
    None, "x", "", "auto", -1, -4, 0, 1, 3, 7, 10**9, 2**40, 10**30, 1.5, -0.5, 1e308,
    float("nan"), float("inf"), True, False, [], [1, 2], [[1], 2], [None], ["x"], [1] * 500, {}, {"a": 1},
    "\ud83d", ["\udc00"],
)  # fmt: skip


def mutate(folder: Path, seed: int) -> str:
    """Change one field of a checkpoint; equal seeds make equal changes.

    Returns:
        What was changed, for messages.
    """
    draw = random.Random(seed)
    file = draw.choice(_FILES)
    document = json.loads((folder / file).read_text("utf-8"))
    name, place = draw.choice(sorted(_fields(document, ""), key=lambda each: each[0]))
    value = draw.choice(_VALUES)
    place[name.rpartition(".")[2]] = value
    (folder / file).write_text(json.dumps(document), "utf-8")
    return f"{seed}: {file} {name} = {json.dumps(value)[:40]}"


def _fields(document: dict[str, Any], above: str) -> list[tuple[str, dict[str, Any]]]:
    found = []
    for name, value in document.items():
        found.append((f"{above}{name}", document))
        if isinstance(value, dict):
            found += _fields(value, f"{above}{name}.")
    return found

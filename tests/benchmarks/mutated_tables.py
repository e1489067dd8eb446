"""``python -m tests.benchmarks.mutated_tables COUNT``: random faults in tables of safetensors and GGUF files.

Each of COUNT files of either format has one to three changes (names, shapes, types, places, bytes). Every
table must be read, with tensors inside of the file, or be refused with one ConversionError. What the
safetensors library refuses must be refused, and what it reads must be read alike or refused.
"""

from __future__ import annotations

import collections
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from conversions.checkpoint.safetensors_header import read_header
from conversions.checkpoint.storage import Folder
from conversions.errors import ConversionError
from tests.conversions.checkpoint import test_gguf
from tests.conversions.weights.lora.mutated_adapters import mutated


def main(count: int) -> int:
    """Run; return how many runs did not end as they must."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        return sum(_tried(kind, count, outcome) for kind, outcome in _kinds(folder).items())


def _kinds(folder: Path) -> dict[str, Callable[[int], str]]:
    source, path, table = (folder / name for name in ("whole.safetensors", "m.safetensors", "m.gguf"))
    random = np.random.default_rng(1)
    shapes = {f"layer.{place}.weight": (place + 1, 4) for place in range(6)} | {"bias": (3,), "scale": ()}
    save_file(
        {name: np.asarray(random.standard_normal(shape), np.float32) for name, shape in shapes.items()},
        source,
        {"format": "pt"},
    )
    whole = test_gguf.sound(table)

    def safetensors(seed: int) -> str:
        return _compared(mutated(source, path, seed))

    def gguf(seed: int) -> str:
        table.write_bytes(test_gguf.damaged(whole, seed))
        return test_gguf.outcome(table)

    return {"safetensors": safetensors, "gguf": gguf}


def _compared(path: Path) -> str:
    try:
        with safe_open(path, "np") as opened:
            theirs = {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118
    except (SafetensorError, ValueError):
        theirs = None
    try:
        found = read_header(Folder(path.parent), path.name)
    except ConversionError as error:
        return error.code if theirs is None else f"{error.code}, which the library reads"
    assert {name: each.shape for name, each in found.items()} == theirs, theirs
    assert all(each.offset + each.size_bytes <= path.stat().st_size for each in found.values())
    return "read"


def _tried(kind: str, count: int, outcome: Callable[[int], str]) -> int:
    ends: collections.Counter[str] = collections.Counter()
    bad, slowest = 0, 0.0
    for seed in range(count):
        began = time.monotonic()
        try:
            ends[outcome(seed)] += 1
        except Exception:  # noqa: BLE001 - this is what is looked for
            bad += 1
            print(f"{kind}, seed {seed}", traceback.format_exc(), flush=True)
        slowest = max(slowest, time.monotonic() - began)
    print(kind, dict(ends.most_common()), f"slowest {slowest:.1f} s", f"{bad} bad", flush=True)
    return bad


if __name__ == "__main__":
    sys.exit(min(1, main(int(sys.argv[1]))))

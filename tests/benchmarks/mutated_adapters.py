"""``python -m tests.benchmarks.mutated_adapters COUNT``: random faults in adapter files.

Each of COUNT adapters of every format gets one to three changes (keys, shapes, types, places, bytes,
metadata) and is merged into a tiny checkpoint. Every run must end in merged weights or in one
ConversionError.
"""

from __future__ import annotations

import collections
import sys
import tempfile
import time
import traceback
from pathlib import Path

from tests import adapters
from tests.checkpoints import VARIANTS, make_variant
from tests.conversions.weights.lora.mutated_adapters import mutated, tried


def main(count: int) -> int:
    """Run; return how many runs did not end as they must."""
    ends: collections.Counter[str] = collections.Counter()
    bad, slowest = 0, 0.0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        checkpoint = make_variant(folder / "tiny", VARIANTS["stable-diffusion"])
        files = [
            adapters.write(adapters.make(checkpoint, kind), folder / f"{place}.safetensors", naming)
            for place, (kind, naming) in enumerate(
                [*((kind, "kohya") for kind in adapters.ALGORITHMS), ("lora", "original"), ("lora", "peft")]
            )
        ]
        for seed in range(count):
            path = mutated(files[seed % len(files)], folder / "mutated.safetensors", seed)
            began = time.monotonic()
            try:
                ends[tried(checkpoint, path)] += 1
            except Exception:  # noqa: BLE001 - this is what is looked for
                bad += 1
                print(f"seed {seed}", traceback.format_exc(), flush=True)
            slowest = max(slowest, time.monotonic() - began)
    print(dict(ends.most_common()), f"slowest {slowest:.1f} s", f"{bad} bad", flush=True)
    return bad


if __name__ == "__main__":
    sys.exit(min(1, main(int(sys.argv[1]))))

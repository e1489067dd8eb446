"""``python -m tests.benchmarks.mutated_configs COUNT``: random faults in configurations, through convert.

Each of COUNT tiny checkpoints gets one field changed at random, and is converted and verified. Every run must
end in a package or in one ConversionError, within a minute; none may blame memory without knowing.
"""

from __future__ import annotations

import collections
import shutil
import sys
import tempfile
import time
from pathlib import Path

from conversions.checkpoint.folder import open_folder
from conversions.conversion import Checks, convert
from conversions.errors import ConversionError
from conversions.events import ignore
from conversions.options import Options
from conversions.plan import make_plan
from conversions.providers.devices import CPU
from tests.checkpoints import make_tiny
from tests.conversions.mutations import mutate


def outcome(source: Path, output: Path, cache: Path) -> tuple[str, str]:
    """Convert and verify; return the kind of end, and its message."""
    try:
        opened = open_folder(source)
        plan = make_plan(opened, Options(target="cpu"), cache)
        convert(
            plan,
            opened,
            output,
            tool_version="test",
            graph_cache=cache,
            checks=Checks(device=CPU),
            listener=ignore,
        )
    except ConversionError as error:
        return error.code, error.message
    except Exception as error:  # noqa: BLE001 - this is what is looked for
        return "UNCAUGHT", f"{type(error).__name__}: {error}"
    return "converted", ""


def main(count: int) -> int:
    """Run; return how many runs did not end as they must."""
    ends: collections.Counter[str] = collections.Counter()
    bad, slowest = 0, 0.0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tiny = make_tiny(folder / "tiny")
        outcome(tiny, folder / "first", folder / "graphs")
        for seed in range(count):
            source = Path(shutil.copytree(tiny, folder / f"source-{seed}"))
            change = mutate(source, seed)
            began = time.monotonic()
            end, message = outcome(source, folder / f"package-{seed}", folder / "graphs")
            seconds = time.monotonic() - began
            ends[end] += 1
            slowest = max(slowest, seconds)
            bad += end in ("UNCAUGHT", "process.died", "process.memory", "process.time") or seconds > 60
            print(
                f"{seconds:5.1f} s  {end:22} {change.encode('ascii', 'replace').decode()}  {message[:200]!r}",
                flush=True,
            )
            shutil.rmtree(source)
            shutil.rmtree(folder / f"package-{seed}", ignore_errors=True)
    print(dict(ends.most_common()), f"slowest {slowest:.1f} s", f"{bad} bad", flush=True)
    return bad


if __name__ == "__main__":
    sys.exit(min(1, main(int(sys.argv[1]))))

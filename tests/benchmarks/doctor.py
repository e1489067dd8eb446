"""How long the doctor takes here: all its checks, offline, which is to be two seconds at most.

Run as ``python -m tests.benchmarks.doctor [RUNS]``. Starts a complete ``sdsetup doctor --offline`` as a
person would, in a process of its own each time, and writes one JSON object: wall seconds of each run, their
median, what the readers took, and for comparison ``python -c "import typer, rich"`` in the same minutes. The
first run, which warms the disk's cache, is told apart and does not count. The network is left alone: what it
takes is not the doctor's.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from typing import Any

_MOST_SECONDS = 2.0


def _seconds(argv: list[str]) -> tuple[float, str]:
    began = time.perf_counter()
    answer = subprocess.run(argv, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    return time.perf_counter() - began, answer.stdout


def measure(runs: int) -> dict[str, Any]:
    """Time the runs, after one that warms the disk's cache."""
    doctor = [sys.executable, "-m", "sdsetup", "doctor", "--offline", "--json"]
    light = [sys.executable, "-c", "import typer, rich"]
    first, _ = _seconds(doctor)
    walls, yardsticks = [], []
    document: dict[str, Any] = {}
    for _ in range(runs):
        seconds, text = _seconds(doctor)
        walls.append(round(seconds, 3))
        document = json.loads(text)
        yardsticks.append(round(_seconds(light)[0], 3))
    return {
        "benchmark": "doctor --offline",
        "findings": len(document["findings"]),
        "runs": runs,
        "first_wall_seconds": round(first, 3),
        "wall_seconds": walls,
        "median_wall_seconds": statistics.median(walls),
        "most_wall_seconds": _MOST_SECONDS,
        "within": statistics.median(walls) <= _MOST_SECONDS,
        "median_seconds_of_importing_typer_and_rich": statistics.median(yardsticks),
        "last_readers_seconds": document["seconds"],
        "machine": {
            "python": platform.python_version(),
            "system": platform.platform(),
            "cores": os.cpu_count(),
            "load": os.getloadavg() if hasattr(os, "getloadavg") else None,
        },
    }


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]) if len(sys.argv) > 1 else 7), indent=1))

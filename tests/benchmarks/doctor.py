"""How long the doctor takes here.

Run as ``python -m tests.benchmarks.doctor [RUNS]``. Starts a complete ``sdsetup doctor`` as a person
would, in a process of its own each time, and writes one JSON object: wall seconds of each run, what the
readers took, and for comparison ``python -c "import typer, rich"`` in the same minutes.
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


def _seconds(argv: list[str]) -> tuple[float, str]:
    began = time.perf_counter()
    answer = subprocess.run(argv, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    return time.perf_counter() - began, answer.stdout


def measure(runs: int) -> dict[str, Any]:
    """Time the runs, after one that warms the disk's cache."""
    doctor = [sys.executable, "-m", "sdsetup", "doctor", "--json"]
    light = [sys.executable, "-c", "import typer, rich"]
    _seconds(doctor)
    walls, yardsticks, readers = [], [], {}
    for _ in range(runs):
        seconds, text = _seconds(doctor)
        walls.append(round(seconds, 3))
        readers = json.loads(text)["seconds"]
        yardsticks.append(round(_seconds(light)[0], 3))
    return {
        "benchmark": "doctor",
        "runs": runs,
        "wall_seconds": walls,
        "median_wall_seconds": statistics.median(walls),
        "median_seconds_of_importing_typer_and_rich": statistics.median(yardsticks),
        "last_readers_seconds": readers,
        "machine": {
            "python": platform.python_version(),
            "system": platform.platform(),
            "cores": os.cpu_count(),
            "load": os.getloadavg() if hasattr(os, "getloadavg") else None,
        },
    }


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]) if len(sys.argv) > 1 else 5), indent=1))

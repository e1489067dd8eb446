"""SDXL base converts inside a memory limit: ``python -m tests.benchmarks.within_memory WORK [GIB]``.

Needs root on Linux and a memory control group, version 1 or 2; WORK needs 14 GB. The limit counts everything
that the conversion's processes hold, pages of files among it. Prints one JSON object.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.benchmarks import full_size, process_tree

_ROOT = Path("/sys/fs/cgroup")
# Joins the group before anything is loaded, then becomes the conversion.
_JOIN = "import os, sys; open(sys.argv[1], 'w').write(str(os.getpid())); os.execv(sys.argv[2], sys.argv[2:])"


def measure(work: Path, limit_bytes: int) -> dict[str, Any]:
    """Convert within the limit and say how it went."""
    checkpoint, output = work / "sdxl", work / "sdxl-output"
    if not (checkpoint / "model_index.json").exists():
        full_size.make_sdxl(checkpoint)
    shutil.rmtree(output, ignore_errors=True)
    first = (_ROOT / "memory").is_dir()
    group = (_ROOT / "memory" if first else _ROOT) / "sdsetup-benchmark"
    group.mkdir(exist_ok=True)
    names = ("memory.limit_in_bytes", "memory.max_usage_in_bytes") if first else ("memory.max", "memory.peak")
    (group / names[0]).write_text(str(limit_bytes))
    process_tree.drop_caches()
    began = time.monotonic()
    try:
        done = subprocess.run(
            [sys.executable, "-c", _JOIN, str(group / "cgroup.procs"), sys.executable, "-m", "sdsetup",
             "convert", str(checkpoint), "--target", "cpu", "--no-verify", "--output", str(output)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        peak = int((group / names[1]).read_text())
    finally:
        group.rmdir()
    written = sum(path.stat().st_size for path in output.rglob("*") if path.is_file())
    shutil.rmtree(output, ignore_errors=True)
    return {
        "benchmark": "within_memory",
        "limit_bytes": limit_bytes,
        "exit_status": done.returncode,
        "complaint": done.stderr[-500:],
        "seconds": time.monotonic() - began,
        "peak_bytes_with_file_pages": peak,
        "written_bytes": written,
        "machine": process_tree.machine(),
    }


if __name__ == "__main__":
    gib = float(sys.argv[2]) if len(sys.argv) > 2 else 2.0
    print(json.dumps(measure(Path(sys.argv[1]), int(gib * 2**30)), indent=1))

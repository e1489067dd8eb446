"""Kills ``convert OWNER/NAME`` at random moments and lets the next run finish.

Run as ``python -m tests.benchmarks.killed_conversions [KILLS [SEED [CACHES]]]``. A small checkpoint is served
on loopback, slowly, so that the download takes its share of the time. Each time the cache is emptied, the
conversion is started, killed with all its children, and started again. Writes one JSON object; all is right
when ``wrong`` is empty: every second run finished, fetched no whole file again, and made the package of an
undisturbed run, byte for byte. Traced graphs are kept in the folder CACHES for the next time.
"""

from __future__ import annotations

import json
import os
import platform
import random
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.checkpoints import make_tiny
from tests.hub_server import Fault, HubServer, Repo, faults
from tests.hub_server.client import Machine
from tests.hub_server.kills import fingerprint, kill_and_run_again

ARGUMENTS = ["--no-verify", "--target", "cpu"]


def measure(kills: int, seed: int, caches: Path | None, home: Path) -> dict[str, Any]:
    """Kill and look, ``kills`` times."""
    moments = random.Random(seed)
    checkpoint = make_tiny(home / "checkpoint")
    files = {
        path.relative_to(checkpoint).as_posix(): path for path in checkpoint.rglob("*") if path.is_file()
    }
    with HubServer() as hub:
        repo = hub.add(Repo(repo_id="acme/tiny", files=files))
        with Machine(endpoint=hub.endpoint, home=home / "user", caches=caches) as machine:
            traced = machine.run_cold("convert", repo.repo_id, *ARGUMENTS, "--output", "first")
            assert traced.code == 0, traced.stderr
            undisturbed = fingerprint(machine.home / "first")
            hub.faults.append(Fault(where="GET /cdn/*", action=faults.drip(2**16, 0.05, 10**9), times=-1))
            outcomes, whole_runs = [], []
            for turn in range(kills):
                way = "--no-cache" if turn % 5 == 4 else "--cache"
                began = time.monotonic()
                if not whole_runs or turn % 10 == 0:
                    machine.run_cold("convert", repo.repo_id, *ARGUMENTS, way, "--output", f"whole-{turn}")
                    whole_runs.append(time.monotonic() - began)
                moment = moments.uniform(0.2, max(whole_runs))
                outcomes.append(
                    kill_and_run_again(hub, machine, repo, [*ARGUMENTS, way], moment, undisturbed)
                )
                print(f"{turn + 1}/{kills}: {outcomes[-1]}", file=sys.stderr)
    return {
        "benchmark": "killed_conversions",
        "kills": kills,
        "seed": seed,
        "right": sum(outcome.right for outcome in outcomes),
        "over_before_the_kill": sum(outcome.finished_first for outcome in outcomes),
        "states": dict(Counter(outcome.state for outcome in outcomes)),
        "seconds_of_a_whole_run": [round(seconds, 2) for seconds in whole_runs],
        "wrong": [asdict(outcome) for outcome in outcomes if not outcome.right],
        "machine": {
            "python": platform.python_version(),
            "system": platform.platform(),
            "cores": os.cpu_count(),
            "load": os.getloadavg() if hasattr(os, "getloadavg") else None,
        },
    }


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        count, start, kept = [*sys.argv[1:], *["50", "1", ""][len(sys.argv) - 1 :]]
        print(
            json.dumps(measure(int(count), int(start), Path(kept) if kept else None, Path(folder)), indent=1)
        )

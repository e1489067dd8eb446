"""``sdsetup --help`` beside a bare import of typer and rich: ``python -m tests.benchmarks.cold_help``."""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time

from tests.benchmarks.process_tree import machine

COMMANDS = {"imports": ["-c", "import typer, rich"], "help": ["-m", "sdsetup", "--help"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=15)
    runs = parser.parse_args().runs
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(runs):
        for name, arguments in COMMANDS.items():
            began = time.monotonic()
            subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
            seconds[name].append(time.monotonic() - began)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    result = {"seconds": medians, "ratio": medians["help"] / medians["imports"], "runs": runs}
    print(json.dumps({"machine": machine(), **result}, indent=2))


if __name__ == "__main__":
    main()

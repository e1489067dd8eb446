"""``python -m tests.windows``: set the Windows root up, and run things in it."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.windows import box, family_shipment, root, shipment, stage
from tests.windows.card.pack import pack
from tests.windows.unavailable import UnavailableError

# What automake's test runner and others read as "skipped".
SKIPPED = 77


def main(arguments: list[str]) -> int:
    """Run one verb; returns the exit status, 77 when this machine cannot hold the root."""
    parser = argparse.ArgumentParser(prog="python -m tests.windows", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("setup", help="build the root (once; it is cached)")
    packing = verbs.add_parser(
        "pack", help="pack the root for a machine with a graphics card: tests/windows/card"
    )
    packing.add_argument("output", type=Path, help="a folder for the parts")
    packing.add_argument("--part-megabytes", type=int, default=50)
    for verb, what in (
        ("run", "pytest under Windows Python"),
        ("directml", "pytest's DirectML tests, with packages that are converted here first"),
        ("all", "both at once: pytest, with packages that are converted here first"),
        ("families", "pytest's DirectML tests of every family, with packages that are converted here first"),
        ("python", "Windows Python itself"),
    ):
        entry = verbs.add_parser(
            verb, allow_abbrev=False, help=f"{what}; other arguments go there as they are"
        )
        limit = {"families": 3600, "all": 1800}.get(verb, 900)
        entry.add_argument("--limit-seconds", type=int, default=limit, help="end everything after this long")
        entry.add_argument("--data", type=Path, help="a folder to show there, read-only, as Z:\\data")
        if verb == "families":
            entry.add_argument(
                "--only", action="append", default=[], help="a tiny checkpoint's name; may repeat"
            )
        entry.add_argument("--lang", default="C.UTF-8", help="locale; ja_JP.UTF-8 makes the code page cp932")
    options, what = parser.parse_known_args(arguments)
    if options.verb in ("setup", "pack") and what:
        parser.error(f"unrecognized arguments: {' '.join(what)}")
    started = time.monotonic()
    try:
        layers = root.set_up(_say)
    except UnavailableError as reason:
        _say(f"skipped: {reason}")
        return SKIPPED
    if options.verb == "setup":
        _say(f"ready in {root.cache_folder()} ({time.monotonic() - started:.1f} s)")
        return 0
    if options.verb == "pack":
        parts = pack(layers, options.output, options.part_megabytes * 10**6)
        _say(f"packed in {len(parts)} parts; next, there: unpack.sh, then run.sh SECONDS ARGUMENTS")
        return 0
    if options.verb == "directml":
        what = ["-m", "directml", *what]
    if options.verb == "families":
        what = ["-s", "tests/windows/test_directml_families.py", *what]
    if options.verb != "python":
        what = ["-m", "pytest", "-p", "no:cacheprovider", "--basetemp=Z:\\tmp\\pytest", *what]
    with ExitStack() as opened, ThreadPoolExecutor(max_workers=1) as beside:
        # Building the wheel mostly waits for the package index.
        project = beside.submit(opened.enter_context, stage.project())
        data = opened.enter_context(_shipment(options))
        try:
            return box.enter(
                [project.result(), *layers],
                "python.sh",
                [str(options.limit_seconds), *what],
                limit_seconds=options.limit_seconds + 60,
                data=data,
                lang=options.lang,
            )
        except subprocess.TimeoutExpired:
            _say(f"stopped after {options.limit_seconds + 60} seconds")
            return 124


@contextmanager
def _shipment(options: argparse.Namespace) -> Iterator[Path | None]:
    """Give the folder that is shown as Z:\\data, and make it for the DirectML tests."""
    if options.verb not in ("directml", "families", "all") or options.data is not None:
        yield options.data
        return
    with tempfile.TemporaryDirectory(prefix="windows-shipment-") as folder:
        started = time.monotonic()
        if options.verb == "families":
            family_shipment.make(Path(folder), options.only)
        else:
            shipment.make(Path(folder))
        _say(f"made the packages in {time.monotonic() - started:.0f} s")
        yield Path(folder)


def _say(text: str) -> None:
    sys.stderr.write(f"windows: {text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

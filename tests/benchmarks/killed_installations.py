"""Kills ``install.sh`` at random moments and lets the next run finish.

Run as ``python -m tests.benchmarks.killed_installations [KILLS [SEED [IN_A_ROW]]]``. A home is emptied, and
install.sh is started there and ended by SIGKILL with every process that it has started, IN_A_ROW times in
succession or until one is over before; then it is started once more and left alone, and all begins again. All
is right when ``wrong`` is empty: each last run ended well, and left the files of an undisturbed installation.
Writes one JSON object.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from tests.benchmarks.process_tree import machine
from tests.packaging.building import ROOT, sources, wheel
from tests.packaging.newcomer import Newcomer

OPTIONS = ("--lean",)
_OVER = "over before"
# What tells the moment of the installation, and locks.
_OF_THE_MOMENT = ("sdsetup-install.log", "-report.html", ".lock")


def measure(kills: int, seed: int, in_a_row: int, folder: Path) -> dict[str, Any]:
    """Kill ``kills`` times, and look each time that an installation was left alone."""
    (folder / "sources").mkdir()
    built = wheel(sources(folder / "sources"), folder)
    person = Newcomer(home=folder / "home", downloads=folder / "downloads", wheel=built)
    person.install(*OPTIONS)  # fills the cache
    shutil.rmtree(person.home)
    began = time.monotonic()
    person.install(*OPTIONS)
    whole = time.monotonic() - began
    undisturbed = tree(person.home)
    moments = random.Random(seed)
    wrong, states, again = [], Counter[str](), []
    span = whole
    while states.total() < kills:
        shutil.rmtree(person.home)
        drawn, reached = [], []
        for _ in range(min(in_a_row, kills - states.total())):
            # What an earlier one has done, the next one finds done.
            moment = moments.uniform(0.2, max(span - sum(drawn), span / 4))
            state = _kill(person, moment)
            if state == _OVER:
                span = min(span, moment)  # the machine has less to do than when a whole run was timed
                break
            drawn.append(moment)
            reached.append(state)
        states.update(reached)
        began = time.monotonic()
        second = _finish(person)
        again.append(time.monotonic() - began)
        differing = sorted(_differing(undisturbed, tree(person.home))) if second.returncode == 0 else []
        if second.returncode != 0 or differing:
            wrong.append(
                {"moments": drawn, "states": reached, "said": second.stdout, "differing": differing[:20]}
            )
        told = ", ".join(f"{state} ({moment:.1f} s)" for state, moment in zip(reached, drawn, strict=True))
        sys.stderr.write(f"{states.total()}/{kills}: {told}, then {again[-1]:.1f} s {differing}\n")
    return {
        "benchmark": "killed_installations",
        "kills": kills,
        "seed": seed,
        "kills_in_a_row": in_a_row,
        "installations": len(again),
        "right": len(again) - len(wrong),
        "states": dict(states),
        "files_compared": len(undisturbed),
        "seconds_of_a_whole_run": round(whole, 1),
        "seconds_of_the_last_run": [round(seconds, 1) for seconds in again],
        "wrong": wrong,
        "machine": machine(),
    }


def _kill(person: Newcomer, moment: float) -> str:
    """Start an installation, end all of it after ``moment`` seconds, and say how far it was."""
    with person.start("sh", ROOT / "install.sh", "--yes", *OPTIONS) as process:
        try:
            process.communicate(timeout=moment)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    if process.returncode == 0:
        return _OVER
    if list(person.home.glob("images/*.png")):
        return "after the image was made"
    if (person.home / "packages").is_dir():
        return "converting or drawing"
    if not (person.data / "venv" / "bin" / "python").exists():
        return "before there was an environment"
    stamp = person.data / "venv" / "sdsetup-install.json"
    if not stamp.exists():
        return "installing the command"
    return "installing packages" if b'"unfinished"' in stamp.read_bytes() else "packages there"


def _finish(person: Newcomer) -> subprocess.CompletedProcess[str]:
    with person.start("sh", ROOT / "install.sh", "--yes", *OPTIONS) as process:
        said, _ = process.communicate()
    return subprocess.CompletedProcess(process.args, process.returncode, said)


def tree(home: Path) -> dict[str, str]:
    """Digest the files that an installation leaves, links as where they lead to."""
    found = {}
    for path in sorted(home.rglob("*")):
        name = path.relative_to(home).as_posix()
        if "__pycache__" in path.parts or name.endswith(_OF_THE_MOMENT) or name.startswith(".cache/"):
            continue
        if path.is_symlink():
            found[name] = f"leads to {path.readlink()}"
        elif path.is_file() and path.name != "REQUESTED":
            found[name] = hashlib.sha256(_content(path)).hexdigest()
    return found


def _content(path: Path) -> bytes:
    """Read a file without what tells when it was made, and by which version of pip."""
    content = path.read_bytes()
    if path.parent.name == "images":
        return b"an image"  # the smoke test has judged it; a busy machine makes it in fewer steps
    if path.name == "manifest.json":  # names the times of the files that it links to
        return re.sub(rb'"modified_ns": \d+', b"", content)
    if path.parent.name == "bin" and content.startswith(b"#!"):
        return b"a script"  # pip's template for it differs between versions
    if path.name == "RECORD":  # in the order of writing, with scripts, caches and what was asked for
        left_out = re.compile(rb"\.pyc,|/bin/|/REQUESTED,")
        return b"\n".join(sorted(line for line in content.splitlines() if not left_out.search(line)))
    return content


def _differing(one: dict[str, str], other: dict[str, str]) -> set[str]:
    return {name for name, _ in one.items() ^ other.items()}


if __name__ == "__main__":
    count, start, row = [*sys.argv[1:], *["30", "1", "3"][len(sys.argv) - 1 :]]
    with tempfile.TemporaryDirectory() as temporary:
        outcome = measure(int(count), int(start), int(row), Path(temporary))
    sys.stdout.write(json.dumps(outcome, indent=1) + "\n")
    sys.exit(1 if outcome["wrong"] else 0)

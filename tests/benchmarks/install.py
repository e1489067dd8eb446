"""How long a newcomer waits: ``python -m sdsetup install`` in a fresh clone, then its parts.

Run as ``python -m tests.benchmarks.install``. Clones the committed state of this checkout into a temporary
folder and installs there with a Python that has nothing; packages come from pip's cache where it holds them.
Then removes the package and installs again, which leaves conversion, verification and smoke test, and makes
one image. Writes one JSON object.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from sdsetup import demo
from sdsetup.imaging.image_file import read_metadata
from tests.benchmarks.process_tree import machine

ROOT = Path(__file__).parents[2]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "sdsetup"
        subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
        fresh = _seconds(clone, "install", "--yes")
        shutil.rmtree(clone / "packages")
        shutil.rmtree(clone / "images")
        converted = _seconds(clone, "install")
        again = _seconds(clone, "install")
        prompt, seed = demo.CAPTIONS[0]
        (package,) = (clone / "packages").iterdir()
        command = (
            "generate",
            str(package),
            prompt,
            "--seed",
            str(seed),
            "--steps",
            "20",
            "--output",
            "shown.png",
        )
        image = _seconds(clone, *command)
        assert read_metadata(clone / "shown.png").request.prompt == prompt
    result = {
        "benchmark": "install",
        "fresh_clone_seconds": fresh,
        "convert_verify_smoke_seconds": converted,
        "everything_there_seconds": again,
        "generate_command_seconds": image,
        "machine": machine(),
    }
    sys.stdout.write(json.dumps(result, indent=1) + "\n")


def _seconds(clone: Path, *arguments: str) -> float:
    bare = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    # The interpreter below this environment: one without packages, as a newcomer has it.
    base = Path(sys.base_prefix) / ("python.exe" if sys.platform == "win32" else "bin/python3")
    began = time.perf_counter()
    subprocess.run([base, "-m", "sdsetup", *arguments], cwd=clone, env=bare, check=True, capture_output=True)
    return round(time.perf_counter() - began, 2)


if __name__ == "__main__":
    main()

"""The whole way of `sdsetup install` once the environment is there, as a person walks it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from sdsetup import demo
from sdsetup.environment import Questions
from sdsetup.probes import plan

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.torch


def _install(folder: Path, model: Path) -> dict[str, Any]:
    code = "import sys; from sdsetup.cli.app import main; sys.exit(main(sys.argv[1:]))"
    answer = subprocess.run(
        [sys.executable, "-c", code, "install", str(model), "--json"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(folder / "cache")},
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert answer.returncode == 0, answer.stderr
    document: dict[str, Any] = json.loads(answer.stdout)
    return document


def test_a_checkpoint_becomes_a_verified_package_and_a_picture_and_a_second_run_keeps_both(
    tmp_path: Path,
) -> None:
    model = demo.checkpoint_path()
    planned = plan.read(Questions(output=tmp_path, converting=str(model)))
    assert 0 < planned.package_bytes < 100_000_000

    first = _install(tmp_path, model)
    assert first["report"] is not None
    package, picture = tmp_path / first["package"], tmp_path / first["picture"]
    with Image.open(picture) as image:
        assert image.size == (128, 128)
    made = {path: path.stat().st_mtime_ns for path in (package / "manifest.json", picture)}

    second = _install(tmp_path, model)
    assert (second["package"], second["picture"]) == (first["package"], first["picture"])
    assert second["report"] is None
    assert made == {path: path.stat().st_mtime_ns for path in made}

    picture.unlink()
    assert _install(tmp_path, model)["report"] is None
    assert picture.is_file()

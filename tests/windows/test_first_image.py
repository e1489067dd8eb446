"""The whole way on Windows: the demo is converted, drawn by DirectML, and every image judged."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from sdsetup.imaging.image_file import read_metadata

pytestmark = [pytest.mark.windows, pytest.mark.directml]


def test_the_demo_becomes_a_package_that_draws_right_on_directml(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "sdsetup", "convert", "demo", "--no-verify", "--smoke-test", "--json"],
        cwd=tmp_path,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert "DirectML" in said["device"]
    assert "100.0% of" in said["device"]
    assert read_metadata(tmp_path / said["image"]).provider == "DmlExecutionProvider"

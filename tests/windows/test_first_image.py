"""The whole way on Windows: the demo is converted, and drawn by DirectML, every image judged."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.windows, pytest.mark.directml]

# Verified on Linux, where PyTorch is: unverified, every norm would be float32, and slow on a software driver.
VERIFIED = Path("/data/demo-package")


def sdsetup(folder: Path, *arguments: str) -> dict[str, object]:
    done = subprocess.run(
        [sys.executable, "-m", "sdsetup", *arguments, "--json"],
        cwd=folder,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    document: dict[str, object] = json.loads(done.stdout)
    return document


def test_the_demo_becomes_a_package_under_windows_python(tmp_path: Path) -> None:
    said = sdsetup(tmp_path, "convert", "demo", "--no-verify", "--no-smoke-test")
    manifest = json.loads((tmp_path / str(said["package"]) / "manifest.json").read_text("utf-8"))
    assert manifest["target"] == "directml"
    assert set(manifest["submodels"]) == {"text_encoder", "unet", "vae_encoder", "vae_decoder"}


@pytest.mark.skipif(not VERIFIED.is_dir(), reason="python -m tests.windows directml makes it")
def test_directml_draws_the_demo_right(tmp_path: Path) -> None:
    said = sdsetup(tmp_path, "smoke-test", str(VERIFIED), "--provider", "directml", "--device-id", "0")
    assert said["passed"]
    ran = said["ran"]
    assert isinstance(ran, dict)
    assert ran["provider"] == "DmlExecutionProvider"
    assert {each["node_share"] for each in ran["submodels"].values()} == {1.0}

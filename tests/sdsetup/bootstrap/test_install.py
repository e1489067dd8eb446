"""How `sdsetup install` and `sdsetup convert` go once the environment is there, as a person walks it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from conversions.errors import ConversionError
from conversions.events import ignore
from sdsetup import demo, workflow
from sdsetup.errors import SetupError
from sdsetup.machine.facts import Questions
from sdsetup.machine.readers import model_needs
from tests.sdsetup import toy_package

ROOT = Path(__file__).parents[3]

pytestmark = pytest.mark.torch


def _said(folder: Path, *arguments: str) -> dict[str, Any]:
    code = "import sys; from sdsetup.cli.app import main; sys.exit(main(sys.argv[1:]))"
    answer = subprocess.run(
        [sys.executable, "-c", code, *arguments, "--json"],
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


@pytest.mark.robustness
def test_a_checkpoint_becomes_a_verified_package_and_an_image_and_a_second_run_keeps_both(
    tmp_path: Path,
) -> None:
    model = demo.checkpoint_path()
    planned = model_needs.read(Questions(output=tmp_path, converting=str(model)))
    assert 0 <= planned.package_bytes < 100_000_000  # the demo's weights are linked on one volume

    first = _said(tmp_path, "install", str(model))
    assert first["report"] is not None
    package, image = tmp_path / first["package"], tmp_path / first["image"]
    with Image.open(image) as shown:
        assert shown.size == (128, 128)
    made = {path: path.stat().st_mtime_ns for path in (package / "manifest.json", image)}

    second = _said(tmp_path, "install", str(model))
    assert (second["package"], second["image"]) == (first["package"], first["image"])
    assert second["report"] is None
    assert made == {path: path.stat().st_mtime_ns for path in made}

    image.unlink()
    assert _said(tmp_path, "install", str(model))["report"] is None
    assert image.is_file()


def test_a_conversion_ends_with_a_first_image_unless_it_is_not_wanted(tmp_path: Path) -> None:
    plain = _said(tmp_path, "convert", "demo", "--output", "plain", "--no-verify")
    assert (plain["report"], plain["image"]) == (None, None)

    looked_at = _said(tmp_path, "convert", "demo", "--output", "seen", "--no-verify", "--smoke-test")
    with Image.open(tmp_path / looked_at["image"]) as shown:
        assert shown.size == (128, 128)
    assert "CPU" in looked_at["device"]


def test_a_wrong_image_is_kept_under_another_name_and_the_next_run_looks_again(tmp_path: Path) -> None:
    weights = {"mix": np.zeros((3, 4, 1, 1), np.float32), "lift": np.float32([-1e4])}
    package = toy_package.write(tmp_path / "black", change={"vae_decoder": weights})
    images = tmp_path / "images"
    for _ in range(2):
        with pytest.raises(SetupError, match="is black"):
            workflow.first_image(package, images, ignore)
    assert {path.name for path in images.iterdir()} == {"black-wrong.png", "black-wrong-2.png"}


def test_a_package_of_no_known_family_is_told_before_any_image(tmp_path: Path) -> None:
    package = toy_package.write(tmp_path / "package")
    (package / "model_index.json").write_text('{"_class_name": "StableVideoDiffusionPipeline"}')
    with pytest.raises(ConversionError, match="StableVideoDiffusionPipeline"):
        workflow.first_image(package, tmp_path / "images", ignore)

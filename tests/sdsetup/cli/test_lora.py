"""``--lora`` on the command line: convert, inspect, generate, and an image made again."""

from __future__ import annotations

import json

import pytest
from PIL import Image
from typer.testing import CliRunner

from conversions.weights.lora.adapter_file import sha256_of
from sdsetup.cli.app import app
from tests import adapters
from tests.sdsetup.imaging.test_pipeline import psnr

pytestmark = pytest.mark.torch


@pytest.fixture
def lora(tiny_checkpoint, tmp_path):
    return adapters.write(adapters.make(tiny_checkpoint, "lora"), tmp_path / "style.safetensors")


def run(*arguments):
    return CliRunner().invoke(app, [str(each) for each in arguments])


def pixels(path):
    import numpy as np

    with Image.open(path) as image:
        return np.array(image)


@pytest.mark.robustness  # merging is compared elsewhere
def test_convert_merges_and_says_so(tiny_checkpoint, graph_cache, lora, tmp_path, monkeypatch):
    monkeypatch.setattr("sdsetup.workflow.graph_cache", lambda: graph_cache)
    folder = tmp_path / "package"
    options = ("--target", "cpu", "--lora", f"{lora}:0.8", "--output", folder)
    planned = run("convert", tiny_checkpoint, *options, "--dry-run")
    assert "style.safetensors, weight 0.8" in planned.output
    done = run("convert", tiny_checkpoint, *options, "--no-smoke-test")
    assert done.exit_code == 0, done.output
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    assert manifest["adapters"] == [{"name": "style.safetensors", "weight": 0.8, "sha256": sha256_of(lora)}]
    assert manifest["checkpoint"]["sha256"]["lora/1-style.safetensors"] == sha256_of(lora)
    assert manifest["parity"]["submodels"]["unet"]["psnr_db"] > 40
    assert "style.safetensors, weight 0.8" in run("inspect", folder).output


def test_generate_merges_and_an_image_can_be_made_again(tiny_package, lora, tmp_path):
    options = ("--steps", 2, "--provider", "cpu", "--seed", 3)
    base = ("generate", tiny_package, "a red horse", *options)
    plain, changed, again = (tmp_path / f"{name}.png" for name in ("plain", "changed", "again"))
    assert run(*base, "-o", plain).exit_code == 0
    done = run(*base, "-o", changed, "--lora", f"{lora}:0.8")
    assert done.exit_code == 0, done.output
    assert psnr(pixels(plain), pixels(changed)) < 35
    with Image.open(changed) as image:
        noted = json.loads(image.info["sdsetup"])["adapters"]
    assert noted == [{"path": str(lora), "weight": 0.8, "sha256": sha256_of(lora)}]
    repeat = ("generate", tiny_package, "--from", changed, "--provider", "cpu", "-o", again, "--overwrite")
    assert run(*repeat).exit_code == 0
    assert (pixels(again) == pixels(changed)).all()
    lora.unlink()
    without = run(*repeat)
    assert without.exit_code == 0
    assert "style.safetensors (weight 0.8), which is gone" in " ".join(without.output.split())
    assert (pixels(again) == pixels(plain)).all()


def test_a_wrong_weight_or_file_is_said_in_one_message(tiny_package, lora):
    wrong = run("generate", tiny_package, "a horse", "--lora", f"{lora}:much")
    assert wrong.exit_code != 0
    assert wrong.exception.code == "lora.weight"
    missing = run("generate", tiny_package, "a horse", "--lora", "nowhere.safetensors:0.5")
    assert missing.exit_code != 0
    assert "There is no file nowhere.safetensors" in missing.exception.message


def test_a_package_with_adapters_is_not_compared_with_the_checkpoint_alone(
    tiny_checkpoint, graph_cache, lora, tmp_path
):
    from conversions.events import ignore
    from conversions.weights.lora.request import AdapterRequest
    from sdsetup.errors import SetupError
    from sdsetup.workflow import verify_package
    from tests.lora_packages import make_package_with

    folder = make_package_with(tiny_checkpoint, tmp_path / "p", graph_cache, [AdapterRequest(path=lora)])
    with pytest.raises(SetupError, match=r"style\.safetensors"):
        verify_package(folder, checkpoint=tiny_checkpoint, provider="cpu", listener=ignore)
    report = verify_package(folder, checkpoint=None, provider="cpu", listener=ignore)
    assert report.passed

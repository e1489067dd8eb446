from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import onnx_ir as ir
import pytest

pytestmark = pytest.mark.torch


@pytest.fixture
def package(tiny_package: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_package, tmp_path / "package"))


def verify(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sdsetup", "verify", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_a_package_is_checked_for_directml_without_directml(package: Path) -> None:
    done = verify(package, "--target", "directml", "--width", 256, "--height", 128, "--json")

    document = json.loads(done.stdout)
    assert done.returncode == 0
    assert document["passed"]
    assert document["submodels"]["vae_decoder"]["partitions"] == 1
    assert document["submodels"]["vae_decoder"]["sizes"] == {"batch": 1, "height": 16, "width": 32}
    assert document["memory"]["device_bytes"] > 0


def test_a_node_without_a_kernel_is_named_and_the_exit_status_is_1(package: Path) -> None:
    path = package / "unet" / "model.onnx"
    model = ir.load(path)
    model.opset_imports[""] = 22
    ir.save(model, path)

    done = verify(package, "--target", "directml")

    assert done.returncode == 1
    assert "no kernel for Conv-22, only for 1, 11" in done.stderr
    assert "does not run every node" in done.stderr


def test_an_unknown_target_is_one_clear_error(package: Path) -> None:
    done = verify(package, "--target", "abacus")

    assert done.returncode != 0
    assert "There is no target 'abacus'" in done.stderr
    assert "Traceback" not in done.stderr

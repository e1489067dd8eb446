from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import onnx_ir as ir
import pytest

from tests.conversions.graphs_for_tests import group_norm_graph


@pytest.fixture
def package(tmp_path: Path) -> Path:
    folder = tmp_path / "package" / "unet"
    folder.mkdir(parents=True)
    ir.save(group_norm_graph(), folder / "model.onnx", external_data="model.onnx_data")
    return folder.parent


def verify(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sdsetup", "verify", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_a_package_is_checked_for_directml_without_directml(package: Path) -> None:
    done = verify(package, "--target", "directml", "--width", 256, "--height", 128, "--json")

    document = json.loads(done.stdout)
    assert done.returncode == 0
    assert document["passed"]
    assert document["submodels"]["unet"]["whole"]
    assert document["submodels"]["unet"]["sizes"] == {"batch": 1, "height": 128, "width": 256}
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

"""The package in another project's hands: optimum-onnx loads it and draws with it.

optimum-onnx wants older libraries than ours, so it lives in an environment of its own. Making that costs
minutes and gigabytes: run ``SDSETUP_INTEROP=1 python -m tests -m interop``, or name the environment.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import platformdirs
import pytest

pytestmark = [pytest.mark.interop, pytest.mark.torch, pytest.mark.timeout(1800)]

REQUIREMENTS = ("torch==2.13.0", "optimum-onnx==0.1.0", "diffusers<0.36", "onnxruntime==1.24.4")

DRAW = """
import json, sys, torch
import numpy as np
from optimum.onnxruntime import ORTStableDiffusionPipeline
pipe = ORTStableDiffusionPipeline.from_pretrained(
    sys.argv[1], provider="CPUExecutionProvider", safety_checker=None)
random = torch.manual_seed(0)
images = pipe("a red cat", num_inference_steps=3, height=128, width=64, num_images_per_prompt=2,
              generator=random, output_type="np").images
finite = bool(np.isfinite(images).all())
print(json.dumps({"shape": images.shape, "finite": finite, "spread": float(images.std())}))
"""


@pytest.fixture(scope="module")
def optimum() -> Path:
    """The Python of an environment with optimum-onnx."""
    given = os.environ.get("SDSETUP_INTEROP", "")
    if not given:
        pytest.skip("needs an environment of its own: SDSETUP_INTEROP=1 makes it")
    folder = (
        Path(given)
        if given != "1"
        else platformdirs.user_cache_path("sdsetup-tests", appauthor=False) / "optimum"
    )
    python = folder / "bin" / "python"
    if not (folder / "ready").exists() and given == "1":
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", *REQUIREMENTS], check=True)
        (folder / "ready").touch()
    return python


@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_optimum_loads_the_package_and_draws_with_it(
    precision: str,
    optimum: Path,
    tiny_checkpoint: Path,
    make_package: Callable[..., Path],
    tmp_path: Path,
) -> None:
    package = make_package(tiny_checkpoint, tmp_path / "package", target="cpu", precision=precision)
    done = subprocess.run(
        [str(optimum), "-c", DRAW, str(package)], capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    drawn = json.loads(done.stdout.splitlines()[-1])
    assert drawn["shape"] == [2, 128, 64, 3]
    assert drawn["finite"]
    assert drawn["spread"] > 0.01

"""Adapters against the libraries that made them popular: diffusers with PEFT, and LyCORIS.

They are no requirement of the tests: ``SDSETUP_INTEROP=1 python -m tests -m interop`` fetches the small
packages into a folder of their own, or ``SDSETUP_PEFT`` names such a folder.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import platformdirs
import pytest

from conversions.weights.lora.request import AdapterRequest
from sdsetup.imaging.latent_noise import LatentNoise
from sdsetup.imaging.request import Request
from tests import adapters
from tests.checkpoints import VARIANTS, make_variant
from tests.conversions.weights.lora.test_merging import evaluated
from tests.lora_packages import drawn, make_package_with
from tests.sdsetup.imaging.test_pipeline import psnr

pytestmark = [pytest.mark.interop, pytest.mark.torch, pytest.mark.timeout(1800)]

REQUIREMENTS = ("peft==0.21.2", "accelerate==1.15.0", "lycoris-lora==4.1.3", "toml==0.10.2", "einops==0.8.1")
NAMES = ("stable-diffusion", "stable-diffusion-xl")
REQUEST = Request(prompt="a red horse on the moon", seed=5, steps=4, guidance_scale=7.5, width=72, height=136)


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    """The environment of a Python that has PEFT and LyCORIS beside our own libraries."""
    given, folder = os.environ.get("SDSETUP_INTEROP", ""), os.environ.get("SDSETUP_PEFT", "")
    if not given and not folder:
        pytest.skip("needs further packages: SDSETUP_INTEROP=1 fetches them")
    target = Path(folder or platformdirs.user_cache_path("sdsetup-tests", appauthor=False) / "peft")
    if not target.is_dir():
        pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(target)]
        subprocess.run([*pip, *REQUIREMENTS], check=True)
    return {**os.environ, "PYTHONPATH": str(target)}


@pytest.fixture(scope="module", params=NAMES)
def checkpoint(request, environment, tmp_path_factory):
    return make_variant(tmp_path_factory.mktemp("checkpoints") / request.param, VARIANTS[request.param])


@pytest.fixture(scope="module")
def package(checkpoint, tmp_path_factory, graph_cache):
    return make_package_with(checkpoint, tmp_path_factory.mktemp("packages") / "plain", graph_cache)


def fused(checkpoint, files, environment, folder):
    from safetensors.numpy import load_file

    np.save(folder / "latents.npy", LatentNoise.of(REQUEST.seed, 1).draw((4, 17, 9)))
    job = {
        "checkpoint": str(checkpoint),
        "pipeline": json.loads((checkpoint / "model_index.json").read_text("utf-8"))["_class_name"],
        "adapters": [[str(path), weight] for path, weight in files],
        "latents": str(folder / "latents.npy"),
        "prompt": REQUEST.prompt,
        "steps": REQUEST.steps,
        "guidance_scale": REQUEST.guidance_scale,
        "width": REQUEST.width,
        "height": REQUEST.height,
        "output": str(folder / "fused.safetensors"),
    }
    script = Path(__file__).with_name("fuse_with_diffusers.py")
    done = subprocess.run(
        [sys.executable, str(script), json.dumps(job)],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return load_file(folder / "fused.safetensors")


def decibels(found, wanted):
    error = np.mean((found.astype(np.float64) - wanted) ** 2)
    return np.inf if error == 0 else 10 * np.log10(np.ptp(wanted.astype(np.float64)) ** 2 / error)


# What diffusers can load: its converter wants both attention and feed forward, and knows no LoHa or LoKr of
# kohya. DoRA is compared with its formula in test_merging.py: diffusers 0.42 leaves the lengths out.
CASES = [
    ("kohya", "lora", False, "float32"),
    ("kohya", "lora", True, "float32"),
    ("kohya", "lora", False, "float16"),
    ("original", "lora", True, "float32"),
    ("peft", "lora", True, "float32"),
    ("old diffusers", "lora", False, "float32"),
]


@pytest.mark.parametrize(("naming", "algorithm", "convolutions", "dtype"), CASES)
def test_weights_and_images_are_those_of_diffusers(
    checkpoint, package, environment, tmp_path, naming, algorithm, convolutions, dtype
):
    if naming == "original" and "xl" not in checkpoint.name:
        pytest.skip("diffusers maps the original names for SDXL alone")
    alpha = None if naming == "old diffusers" else 2.0
    adapter = adapters.make(
        checkpoint, algorithm, alpha=alpha, convolutions=convolutions, components=tuple(adapters.KOHYA)
    )
    file = adapters.write(adapter, tmp_path / "a.safetensors", naming, dtype=dtype)
    reference = fused(checkpoint, [(file, 1.0)], environment, tmp_path)
    ours = evaluated(checkpoint, [AdapterRequest(path=file)])
    worst = min(
        decibels(ours[component, name], reference[f"{component} {known(reference, component, name)}"])
        for component, name in ours
    )
    assert worst > 100
    plain = drawn(package, REQUEST)
    with_adapter = drawn(package, REQUEST, [AdapterRequest(path=file)])
    assert psnr(plain, reference["image"]) < 30
    assert psnr(with_adapter, reference["image"]) > 60


def known(reference, component, name):
    """Return the name that a weight has in diffusers, which may leave ``text_model`` out."""
    if f"{component} {name}" in reference:
        return name
    return name.removeprefix("text_model.")


@pytest.mark.parametrize(
    "algorithm",
    ["lora", "tucker", "loha", "loha tucker", "lokr", "lokr whole", "lokr both", "lokr tucker"],
)
def test_changes_are_those_of_lycoris(checkpoint, environment, tmp_path, algorithm):
    adapter = adapters.make(checkpoint, algorithm, alpha=None)
    file = adapters.write(adapter, tmp_path / "a.safetensors")
    script = Path(__file__).with_name("deltas_of_lycoris.py")
    done = subprocess.run(
        [sys.executable, str(script), str(file), str(tmp_path / "changes.safetensors")],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    from safetensors.numpy import load_file

    changes = load_file(tmp_path / "changes.safetensors")
    ours, plain = evaluated(checkpoint, [AdapterRequest(path=file)]), evaluated(checkpoint, [])
    compared = 0
    for component, module in adapter.layers:
        prefix = adapters.KOHYA[component]
        flat = module if component == "unet" or module.startswith("text_model.") else f"text_model.{module}"
        change = changes[f"{prefix}_{flat.replace('.', '_')}"]
        name = (component, f"{module}.weight")
        assert decibels(ours[name], plain[name] + change.reshape(plain[name].shape)) > 100, name
        compared += 1
    assert compared == len(changes) > 20

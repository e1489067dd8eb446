"""Adapters merged when images are made: the same images as merged at conversion."""

from __future__ import annotations

import gc
from dataclasses import replace

import numpy as np
import pytest

from conversions.weights.lora.request import AdapterRequest
from sdsetup.errors import SetupError
from sdsetup.imaging.pipeline import Pipeline
from sdsetup.imaging.request import Request
from sdsetup.runtime.adapters import AppliedAdapter, open_adapters
from sdsetup.runtime.package import open_for_images
from sdsetup.runtime.runner import LocalRunner
from sdsetup.runtime.used_again import used_again
from sdsetup.runtime.worker import WorkerRunner
from tests import adapters
from tests.checkpoints import VARIANTS, make_variant
from tests.lora_packages import drawn, make_package_with
from tests.sdsetup.imaging.test_pipeline import cpu, psnr

pytestmark = pytest.mark.torch
REQUEST = Request(prompt="a red horse on the moon", seed=5, steps=3, guidance_scale=7.5, width=72, height=136)


@pytest.fixture(
    scope="module",
    params=["stable-diffusion", pytest.param("stable-diffusion-xl", marks=pytest.mark.robustness)],
)
def checkpoint(request, tmp_path_factory):
    return make_variant(tmp_path_factory.mktemp("checkpoints") / request.param, VARIANTS[request.param])


@pytest.mark.parametrize(("precision", "bound"), [("fp32", 80), ("fp16", 35)])
def test_merged_now_or_at_conversion_the_image_is_the_same(
    checkpoint, graph_cache, tmp_path, precision, bound
):
    files = [
        adapters.write(adapters.make(checkpoint, kind, seed=seed), tmp_path / f"{kind}.safetensors")
        for seed, kind in enumerate(("tucker", "dora", "lokr both"))
    ]
    requests = [AdapterRequest(path=path, weight=weight) for path, weight in zip(files, (1, 0.6, -0.4))]  # noqa: B905
    plain = make_package_with(checkpoint, tmp_path / "plain", graph_cache, precision=precision)
    merged = make_package_with(checkpoint, tmp_path / "merged", graph_cache, requests, precision=precision)
    before = drawn(plain, REQUEST)
    now, then = drawn(plain, REQUEST, requests), drawn(merged, REQUEST)
    assert psnr(before, then) < 30
    assert psnr(now, then) > bound
    assert np.array_equal(drawn(plain, REQUEST), before)
    assert not np.array_equal(drawn(plain, REQUEST, requests[:1]), now)


def test_a_worker_merges_by_itself_and_again_after_clip_skip(checkpoint, graph_cache, tmp_path):
    file = adapters.write(adapters.make(checkpoint, "lora"), tmp_path / "a.safetensors")
    folder = make_package_with(checkpoint, tmp_path / "plain", graph_cache, precision="fp16")
    package = open_for_images(folder)
    opened = open_adapters(package, [AdapterRequest(path=file)])
    request = replace(REQUEST, clip_skip=min(1, package.recipe.most_clip_skip))
    here = LocalRunner(package=package, device=cpu(), adapters=opened)
    there = WorkerRunner(package=package, device=cpu(), adapters=opened)
    try:
        images = [
            Pipeline(package=package, runner=runner).generate(request, check_safety=False).pixels
            for runner in (here, there)
        ]
    finally:
        there.close()
    assert np.array_equal(*images)


def test_merged_weights_outlive_their_arrays(checkpoint, graph_cache, tmp_path):
    """ONNX Runtime reads the arrays in place: they must not go before the session does."""
    file = adapters.write(adapters.make(checkpoint, "lora"), tmp_path / "a.safetensors")
    package = open_for_images(make_package_with(checkpoint, tmp_path / "plain", graph_cache))
    opened = open_adapters(package, [AdapterRequest(path=file)])
    runner = LocalRunner(package=package, device=cpu(), adapters=opened)
    pipeline = Pipeline(package=package, runner=runner)
    first = pipeline.generate(REQUEST, check_safety=False).pixels
    gc.collect()
    rubbish = [np.full(1 << 20, 1e30, np.float32) for _ in range(50)]
    assert np.array_equal(pipeline.generate(REQUEST, check_safety=False).pixels, first)
    assert len(rubbish) == 50


def test_a_change_beyond_float16_is_refused_with_the_file(checkpoint, graph_cache, tmp_path):
    file = adapters.write(adapters.make(checkpoint, "lora"), tmp_path / "strong.safetensors")
    folder = make_package_with(checkpoint, tmp_path / "plain", graph_cache, precision="fp16")
    with pytest.raises(SetupError, match=r"strong.safetensors \(weight 1e\+07\)") as caught:
        drawn(folder, REQUEST, [AdapterRequest(path=file, weight=1e7)])
    assert caught.value.code == "lora.not_finite"


def test_adapters_of_an_image_are_found_again(tmp_path):
    from conversions.weights.lora.adapter_file import sha256_of

    there, gone, other = (tmp_path / f"{name}.safetensors" for name in ("there", "gone", "other"))
    there.write_bytes(b"1")
    other.write_bytes(b"2")
    made = [
        AppliedAdapter(path=str(there), weight=0.5, sha256=sha256_of(there)),
        AppliedAdapter(path=str(gone), weight=0.7, sha256="0"),
        AppliedAdapter(path=str(other), weight=1.0, sha256="0"),
    ]
    found = used_again(made)
    assert found.adapters == (AdapterRequest(path=there, weight=0.5),)
    assert len(found.remarks) == 2
    assert "gone.safetensors (weight 0.7), which is gone" in found.remarks[0]
    assert "--lora FILE:0.7" in found.remarks[0]
    assert "another file now" in found.remarks[1]

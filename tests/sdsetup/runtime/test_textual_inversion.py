"""Textual inversion without reconversion, against diffusers' ``load_textual_inversion``."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import save_file

from sdsetup.errors import SetupError
from sdsetup.imaging.latent_noise import LatentNoise
from sdsetup.imaging.request import Request
from tests.checkpoints import VARIANTS, make_variant
from tests.lora_packages import drawn, make_package_with
from tests.sdsetup.imaging.test_pipeline import psnr

pytestmark = pytest.mark.torch
REQUEST = Request(prompt="a red horse", seed=5, steps=3, guidance_scale=7.5, width=72, height=136)
WIDTHS = {"stable-diffusion": (32,), "stable-diffusion-xl": (32, 48)}


@pytest.fixture(scope="module", params=WIDTHS)
def checkpoint(request, tmp_path_factory):
    return make_variant(tmp_path_factory.mktemp("checkpoints") / request.param, VARIANTS[request.param])


@pytest.fixture(scope="module")
def package(checkpoint, tmp_path_factory, graph_cache):
    return make_package_with(checkpoint, tmp_path_factory.mktemp("packages") / "plain", graph_cache)


def vectors(count, widths):
    random = np.random.default_rng(count)
    return [random.standard_normal((count, width)).astype(np.float32) for width in widths]


def write(path, tables, form=None):
    if len(tables) == 2:
        save_file(dict(zip(("clip_l", "clip_g"), tables, strict=True)), path)
    else:
        save_file({form or "emb_params": tables[0]}, path)
    return path


def of_diffusers(checkpoint, token, tables, request):
    import torch
    from diffusers import DiffusionPipeline

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipeline = DiffusionPipeline.from_pretrained(checkpoint)
        pipeline.set_progress_bar_config(disable=True)
        parts = [(pipeline.tokenizer, pipeline.text_encoder)]
        if len(tables) == 2:
            parts.append((pipeline.tokenizer_2, pipeline.text_encoder_2))
        for table, (tokenizer, encoder) in zip(tables, parts, strict=True):
            pipeline.load_textual_inversion(
                {token: torch.from_numpy(table)}, tokenizer=tokenizer, text_encoder=encoder
            )
        noise = LatentNoise.of(request.seed, 1).draw((4, request.height // 8, request.width // 8))
        image = pipeline(
            request.prompt,
            latents=torch.from_numpy(noise),
            num_inference_steps=request.steps,
            guidance_scale=request.guidance_scale,
            width=request.width,
            height=request.height,
            output_type="np",
        ).images[0]
    return (image * 255).round().astype(np.uint8)


@pytest.mark.parametrize("count", [1, 3])
def test_images_are_those_of_diffusers(checkpoint, package, tmp_path, count):
    tables = vectors(count, WIDTHS[checkpoint.name])
    file = write(tmp_path / "cat-toy.safetensors", tables)
    request = replace(REQUEST, prompt="a red cat-toy horse, cat-toy")
    found = drawn(package, request, embeddings=[file])
    assert psnr(found, drawn(package, request)) < 40
    assert psnr(found, of_diffusers(checkpoint, "cat-toy", tables, request)) > 60
    assert np.array_equal(drawn(package, REQUEST, embeddings=[file]), drawn(package, REQUEST))


def test_the_token_inside_the_file_counts(checkpoint, package, tmp_path):
    tables = vectors(2, WIDTHS[checkpoint.name])
    if len(tables) == 2:
        pytest.skip("pairs for SDXL name no token")
    file = write(tmp_path / "learned_embeds.safetensors", tables, "<toy>")
    named = write(tmp_path / "toy2.safetensors", tables)
    both = [file, named]
    one, two = (
        drawn(package, replace(REQUEST, prompt=f"a {token} horse"), embeddings=both)
        for token in ("<toy>", "toy2")
    )
    assert np.array_equal(one, two)


def test_what_does_not_fit_is_refused(checkpoint, package, tmp_path):
    widths = WIDTHS[checkpoint.name]

    def refused(file):
        with pytest.raises(SetupError) as caught:
            drawn(package, REQUEST, embeddings=[file])
        return caught.value

    error = refused(write(tmp_path / "wide.safetensors", vectors(1, (768,))))
    assert error.code == "embedding.width"
    assert f"768; this model's text encoders want {' and '.join(map(str, widths))}" in error.message
    bad = vectors(1, widths)
    bad[0][0, 3] = np.nan
    assert "NaN" in refused(write(tmp_path / "nan.safetensors", bad)).message
    save_file({"a": bad[0], "b": bad[0]}, tmp_path / "two.safetensors")
    assert refused(tmp_path / "two.safetensors").code == "embedding.format"
    assert refused(tmp_path / "gone.safetensors").code == "embedding.missing"
    (tmp_path / "x.pt").write_bytes(b"\x80")
    assert "pickle" in refused(tmp_path / "x.pt").message
    known = write(tmp_path / "!.safetensors", vectors(1, widths))
    assert refused(known).code == "embedding.token"

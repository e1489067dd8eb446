"""Adapters that cannot be used: each is refused with a message that says why."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from conversions.checkpoint.folder import open_folder
from conversions.errors import ConversionError
from conversions.weights.lora.request import AdapterRequest
from conversions.weights.lora.with_adapters import with_adapters
from tests import adapters
from tests.checkpoints import VARIANTS, make_variant
from tests.conversions.weights.lora.mutated_adapters import mutated, tried

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def sd1(tmp_path_factory):
    return make_variant(tmp_path_factory.mktemp("sd1") / "sd1", VARIANTS["stable-diffusion"])


@pytest.fixture(scope="module")
def sdxl(tmp_path_factory):
    return make_variant(tmp_path_factory.mktemp("sdxl") / "sdxl", VARIANTS["stable-diffusion-xl"])


@pytest.fixture
def lora(sd1, tmp_path):
    return adapters.write(adapters.make(sd1, "lora"), tmp_path / "style.safetensors")


def refused(checkpoint, path, **options):
    with pytest.raises(ConversionError) as caught:
        with_adapters(open_folder(checkpoint), [AdapterRequest(path=path)], **options)
    assert str(path) in caught.value.message
    return caught.value


def changed(path, change):
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)
    return path


def test_unmatched_keys_are_named(sd1, lora):
    def add(tensors):
        for place in range(12):
            tensors[f"lora_unet_nowhere_{place}.lora_down.weight"] = np.zeros((2, 2), np.float32)
            tensors[f"lora_unet_nowhere_{place}.lora_up.weight"] = np.zeros((2, 2), np.float32)
        tensors["bundle_emb.x"] = np.zeros(2, np.float32)

    error = refused(sd1, changed(lora, add))
    assert error.code == "lora.unmatched"
    assert "bundle_emb.x, lora_unet_nowhere_" in error.message
    assert "and 17 more" in error.message
    found = with_adapters(open_folder(sd1), [AdapterRequest(path=lora)], ignore_unmatched=True)
    assert "and 17 more" in found.notices[0]
    assert found.checkpoint.components["unet"].transforms


def test_another_family_s_adapter_is_recognised(sd1, sdxl, tmp_path):
    one = adapters.write(adapters.make(sdxl, "lora"), tmp_path / "xl.safetensors")
    assert refused(sd1, one).code in ("lora.unmatched", "lora.shape")
    real = {
        "lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k.lora_down.weight": (4, 2048),
        "lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k.lora_up.weight": (640, 4),
    }
    save_file({name: np.ones(shape, np.float32) for name, shape in real.items()}, one)
    error = refused(sd1, one)
    assert error.code == "lora.foreign"
    assert "looks like an adapter for Stable Diffusion XL; this is Stable Diffusion 1.x" in error.message
    assert refused(sd1, one, ignore_unmatched=True).code == "lora.foreign"
    flux = {
        "lora_unet_double_blocks_0_img_attn_proj.lora_down.weight": np.ones((4, 3072), np.float32),
        "lora_unet_double_blocks_0_img_attn_proj.lora_up.weight": np.ones((3072, 4), np.float32),
    }
    save_file(flux, one)
    assert "an adapter for FLUX" in refused(sd1, one).message


def test_shapes_that_do_not_fit_are_refused_with_names(sd1, lora):
    name = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"

    def widen(tensors):
        tensors[f"{name}.lora_down.weight"] = np.zeros((3, 65), np.float32)

    error = refused(sd1, changed(lora, widen))
    assert error.code == "lora.shape"
    assert f"{name}: it makes [64, 65], the weight is [64, 64]" in error.message
    assert refused(sd1, lora, ignore_unmatched=True).code == "lora.shape"


def test_a_part_that_is_missing_is_named(sd1, lora):
    name = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"
    error = refused(sd1, changed(lora, lambda tensors: tensors.pop(f"{name}.lora_up.weight")))
    assert f"{name}: it has down and lacks up" in error.message


@pytest.mark.parametrize("alpha", [np.float32(np.nan), np.float32(np.inf)])
def test_an_alpha_that_is_no_number_is_refused(sd1, lora, alpha):
    def spoil(tensors):
        tensors[next(name for name in tensors if name.endswith(".alpha"))] = np.asarray(alpha)

    assert refused(sd1, changed(lora, spoil)).code == "lora.broken"


def test_files_that_are_no_adapters(sd1, tmp_path):
    assert refused(sd1, tmp_path / "nothing.safetensors").code == "lora.missing"
    pickle = tmp_path / "old.pt"
    pickle.write_bytes(b"\x80\x02}")
    assert "pickle" in refused(sd1, pickle).message
    whole = next((sd1 / "unet").glob("*.safetensors"))
    assert refused(sd1, whole).code == "lora.format"
    short = tmp_path / "short.safetensors"
    short.write_bytes(struct.pack("<Q", 1 << 40) + b"{}")
    assert refused(sd1, short).code == "checkpoint.corrupt"


def test_mutated_adapters_never_raise_anything_else(sd1, tmp_path):
    files = [
        adapters.write(adapters.make(sd1, kind), tmp_path / f"{place}.safetensors")
        for place, kind in enumerate(("lora", "tucker", "loha tucker", "lokr both", "dora", "full"))
    ]
    outcomes = [
        tried(sd1, mutated(files[seed % len(files)], tmp_path / "m.safetensors", seed)) for seed in range(150)
    ]
    assert outcomes.count("used") >= 10
    assert len(outcomes) - outcomes.count("used") >= 50

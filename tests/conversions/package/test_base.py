"""A package as the base of a single file that holds the denoiser alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from conversions.checkpoint.folder import Checkpoint, component_tensors, open_folder
from conversions.checkpoint.single_file import open_file
from conversions.conversion import convert
from conversions.errors import ConversionError
from conversions.events import ignore
from conversions.options import Options
from conversions.package.base import package_as_checkpoint
from conversions.package.layout import open_package
from conversions.plan import make_plan
from conversions.weights.read_numbers import read_numbers
from conversions.weights.with_embeddings import with_embeddings
from tests.checkpoints import VARIANTS, make_variant
from tests.single_files import write_single_file

pytestmark = pytest.mark.torch


@pytest.fixture(
    scope="module",
    params=["stable-diffusion", pytest.param("stable-diffusion-xl", marks=pytest.mark.robustness)],
)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_variant(tmp_path_factory.mktemp("checkpoint") / "tiny", VARIANTS[request.param])


def package_of(checkpoint: Checkpoint, output: Path, graph_cache: Path, **options: str) -> Path:
    plan = make_plan(
        checkpoint, Options(**{"target": "directml", "precision": "fp32", **options}), graph_cache
    )
    convert(
        plan, checkpoint, output, tool_version="test", graph_cache=graph_cache, checks=None, listener=ignore
    )
    return output


def numbers_of(checkpoint: Checkpoint, component: str) -> dict[str, np.ndarray]:
    storage = checkpoint.storage
    found = component_tensors(storage, checkpoint.components[component])
    paths = {
        stored.file: path
        for each in found.values()
        for stored in each.stored
        if (path := storage.path_of(stored.file)) is not None
    }
    read = read_numbers(paths)
    return {
        name.removeprefix("text_model."): each.evaluate(0, each.size, read).reshape(each.shape)
        for name, each in found.items()
    }


def denoiser_of(folder: Path, target: Path) -> Path:
    from safetensors.torch import load_file, save_file

    prefix = "model.diffusion_model."
    tensors = load_file(write_single_file(folder, target.with_name("whole.safetensors")))
    save_file(
        {name.removeprefix(prefix): each for name, each in tensors.items() if name.startswith(prefix)}, target
    )
    return target


def test_a_package_gives_what_a_denoiser_lacks(folder: Path, tmp_path: Path, graph_cache: Path) -> None:
    whole = open_folder(folder)
    first = package_of(whole, tmp_path / "first", graph_cache)
    base = package_as_checkpoint(open_package(first), without=("safety_checker",))
    for component in base.components:
        wanted, found = numbers_of(whole, component), numbers_of(base, component)
        assert found
        for name, values in found.items():
            np.testing.assert_array_equal(values, wanted[name], err_msg=name)
    alone = open_file(denoiser_of(folder, tmp_path / "denoiser.safetensors"), base=base)
    second = open_package(package_of(alone, tmp_path / "second", graph_cache))
    one = open_package(first)
    small = [name for name in one.files if name.endswith(".json") and name != "model_index.json"]
    assert {name: second.files[name] for name in small} == {name: one.files[name] for name in small}
    made = package_as_checkpoint(second)
    for component in made.components:
        wanted, found = numbers_of(whole, component), numbers_of(made, component)
        assert all(np.array_equal(found[name], wanted[name]) for name in found)


def test_a_base_of_another_kind_is_refused_by_name(tmp_path: Path, graph_cache: Path) -> None:
    folder = make_variant(tmp_path / "xl", VARIANTS["stable-diffusion-xl"])
    other = make_variant(tmp_path / "sd", VARIANTS["stable-diffusion"])
    package = package_of(open_folder(other), tmp_path / "package", graph_cache)
    base = package_as_checkpoint(open_package(package))
    with pytest.raises(ConversionError) as caught:
        open_file(denoiser_of(folder, tmp_path / "denoiser.safetensors"), base=base)
    assert caught.value.code == "checkpoint.other_base"
    assert "has cross_attention_dim 80; the base" in caught.value.message
    assert caught.value.message.endswith("has 32.")


def test_a_base_with_learned_tokens_does_not_go_with_a_file_s_own_text_encoder(
    folder: Path, tmp_path: Path
) -> None:
    widths = {"clip_l": 32, "clip_g": 48} if (folder / "text_encoder_2").is_dir() else {"emb_params": 32}
    rows = {name: np.ones((2, width), np.float32) for name, width in widths.items()}
    save_file(rows, tmp_path / "cat-toy.safetensors")
    learned = with_embeddings(open_folder(folder), [tmp_path / "cat-toy.safetensors"])
    whole = write_single_file(folder, tmp_path / "whole.safetensors")
    with pytest.raises(ConversionError) as caught:
        open_file(whole, base=learned)
    assert caught.value.code == "checkpoint.other_base"
    assert "some of them learned" in caught.value.message
    assert open_file(whole, base=open_folder(folder)).components
    alone = open_file(denoiser_of(folder, tmp_path / "denoiser.safetensors"), base=learned)
    assert alone.components["text_encoder"] == learned.components["text_encoder"]


def test_a_quantised_base_and_a_torn_one_are_refused(tmp_path: Path, graph_cache: Path) -> None:
    folder = make_variant(tmp_path / "sd", VARIANTS["stable-diffusion"])
    file = denoiser_of(folder, tmp_path / "denoiser.safetensors")
    package = open_package(package_of(open_folder(folder), tmp_path / "p", graph_cache, precision="int8"))
    base = package_as_checkpoint(package)
    with pytest.raises(ConversionError, match="int8") as caught:
        make_plan(open_file(file, base=base), Options(target="cpu"), graph_cache)
    assert caught.value.code == "package.quantized"
    (package.folder / "vae_decoder" / "model.onnx_data").write_bytes(b"short")
    with pytest.raises(ConversionError) as torn:
        package_as_checkpoint(package)
    assert torn.value.code == "package.torn"

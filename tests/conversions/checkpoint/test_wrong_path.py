"""A folder where a file is wanted, a part where the whole is: the answer names what to give."""

from __future__ import annotations

from pathlib import Path

import pytest

from conversions.checkpoint.folder import open_folder
from conversions.checkpoint.single_file import open_file
from conversions.errors import ConversionError
from conversions.package.layout import open_package
from conversions.weights.lora.adapter_file import read_adapter
from conversions.weights.textual_inversion import read_embeddings


@pytest.fixture
def pipeline(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "unet").mkdir(parents=True)
    (folder / "model_index.json").write_text("{}")
    (folder / "unet" / "config.json").write_text("{}")
    (folder / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"")
    return folder


def refused(call, *arguments) -> ConversionError:
    with pytest.raises(ConversionError) as caught:
        call(*arguments)
    return caught.value


@pytest.mark.parametrize("part", ["unet", "unet/diffusion_pytorch_model.safetensors"])
def test_for_a_component_the_pipeline_that_it_is_of_is_named(pipeline: Path, part: str) -> None:
    path = pipeline / part
    error = refused(open_folder if path.is_dir() else open_file, path)
    assert error.code == "checkpoint.is_component"
    assert error.hint == f"Give the pipeline's folder: {pipeline}"


def test_a_component_without_its_pipeline_is_told_as_one(pipeline: Path) -> None:
    (pipeline / "model_index.json").unlink()
    assert "holds one component" in refused(open_folder, pipeline / "unet").hint


def test_a_single_file_beside_a_pipeline_is_no_part_of_it(pipeline: Path) -> None:
    (pipeline / "v1-5.safetensors").write_bytes(b"")
    assert refused(open_file, pipeline / "v1-5.safetensors").code != "checkpoint.is_component"


@pytest.mark.parametrize("read", [lambda path: read_adapter(path, "a"), read_embeddings], ids=["lora", "ti"])
def test_for_a_folder_its_files_are_named(read, tmp_path: Path) -> None:
    folder = tmp_path / "several"
    folder.mkdir()
    assert refused(read, folder).hint == "Give a file: the folder holds no .safetensors."
    for name in "edcba":
        (folder / f"{name}.safetensors").write_bytes(b"")
    error = refused(read, folder)
    assert f"{folder} is a folder" in error.message
    assert f"{folder / 'a.safetensors'}, " in error.hint
    assert error.hint.endswith("d.safetensors and 1 more.")
    assert "There is no file" in refused(read, tmp_path / "none.safetensors").message


def test_for_a_file_the_package_that_it_is_in_is_named(tmp_path: Path) -> None:
    graph = tmp_path / "package" / "unet" / "model.onnx"
    graph.parent.mkdir(parents=True)
    graph.write_bytes(b"")
    assert refused(open_package, graph).hint == "Give a package's folder."
    manifest = tmp_path / "package" / "manifest.json"
    manifest.write_text("{}")
    for path in (graph, manifest):
        error = refused(open_package, path)
        assert error.code == "package.is_file"
        assert error.hint == f"Give the package's folder: {manifest.parent}"

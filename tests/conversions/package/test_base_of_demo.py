"""A package of the checkpoint that ships, read as a checkpoint again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conversions.checkpoint.folder import Checkpoint, component_tensors, open_folder
from conversions.checkpoint.json_file import read_object
from conversions.checkpoint.safetensors_header import StoredTensor
from conversions.checkpoint.storage import Folder
from conversions.errors import ConversionError
from conversions.package.base import AsInPyTorch, package_as_checkpoint
from conversions.package.layout import DATA_FILE, open_package
from conversions.weights.expression import Expression, Stored, evaluate_range
from conversions.weights.read_numbers import read_numbers
from sdsetup.demo import checkpoint_path
from tests.demo_package import demo_package


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return demo_package(tmp_path_factory.mktemp("base") / "package", precision="fp32").folder


@pytest.fixture
def package(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "package"))


def test_its_index_is_that_of_the_checkpoint(package: Path) -> None:
    base = package_as_checkpoint(open_package(package))
    known = read_object(Folder(checkpoint_path()), "model_index.json")
    assert dict(base.index) == known
    assert base.origin == "package"
    assert base.scheduler == open_folder(checkpoint_path()).scheduler
    assert [each.name for each in base.submodels] == ["text_encoder", "unet", "vae_encoder", "vae_decoder"]
    assert set(base.components) == {"text_encoder", "unet", "vae"}
    files = base.components["vae"].weights.files
    assert files == ("vae_encoder/model.onnx", "vae_decoder/model.onnx")


def test_components_that_are_left_out_are_absent_there(package: Path) -> None:
    base = package_as_checkpoint(open_package(package), without=("vae", "text_encoder"))
    assert set(base.components) == {"unet"}
    assert base.index["vae"] == base.index["text_encoder"] == [None, None]
    assert base.index["unet"] == ["diffusers", "UNet2DConditionModel"]


def test_a_class_that_no_file_names_is_that_of_the_graph(package: Path) -> None:
    path = package / "text_encoder" / "config.json"
    config = {name: value for name, value in json.loads(path.read_text("utf-8")).items() if name[0] != "a"}
    path.write_text(json.dumps(config), "utf-8")  # of another size, as the owner may have it
    base = package_as_checkpoint(open_package(package))
    assert base.index["text_encoder"] == ["transformers", "CLIPTextModel"]
    assert "architectures" not in base.components["text_encoder"].config


def numbers(checkpoint: Checkpoint, expression: Expression) -> Any:
    paths = {each.file: checkpoint.storage.path_of(each.file) for each in expression.stored}
    read = read_numbers({file: path for file, path in paths.items() if path is not None})
    return evaluate_range(expression, 0, expression.size, read).reshape(expression.shape)


def test_weights_of_a_package_are_those_of_the_checkpoint(package: Path) -> None:
    wanted, base = open_folder(checkpoint_path()), package_as_checkpoint(open_package(package))
    for name, component in base.components.items():
        (transform,) = component.transforms
        assert isinstance(transform, AsInPyTorch)
        assert (transform.component, transform.scales, transform.quantized) == (name, (), "")
        theirs = component_tensors(wanted.storage, wanted.components[name])
        ours = component_tensors(base.storage, component)
        for key, expression in ours.items():
            stored = theirs.get(key) or theirs[f"text_model.{key}"]
            np.testing.assert_array_equal(
                numbers(base, expression), numbers(wanted, stored).astype(np.float32), err_msg=key
            )


@pytest.mark.parametrize("name", [f"unet/{DATA_FILE}", "vae_decoder/model.onnx", "tokenizer/vocab.json"])
def test_a_package_that_lacks_a_file_is_torn(name: str, package: Path) -> None:
    opened = open_package(package)
    (package / name).unlink()
    with pytest.raises(ConversionError, match=f"{name} is missing") as caught:
        package_as_checkpoint(opened)
    assert caught.value.code == "package.torn"


@pytest.mark.parametrize("name", [f"unet/{DATA_FILE}", "tokenizer/merges.txt"])
def test_a_package_with_a_file_of_another_size_is_torn(name: str, package: Path) -> None:
    opened = open_package(package)
    with (package / name).open("ab") as file:
        file.write(b" ")
    with pytest.raises(ConversionError, match=f"{name} has another size than its manifest says") as caught:
        package_as_checkpoint(opened)
    assert caught.value.code == "package.torn"


def test_of_quantised_weights_no_other_package_is_made(tmp_path: Path) -> None:
    package = demo_package(tmp_path / "package", precision="fp16", precisions={"unet": "int8"})
    base = package_as_checkpoint(package)
    with pytest.raises(ConversionError) as caught:
        component_tensors(base.storage, base.components["unet"])
    assert caught.value.code == "package.quantized"
    assert "the weights of 'unet' in int8" in caught.value.message
    assert component_tensors(base.storage, base.components["text_encoder"])
    # The others can serve a file that has a denoiser of its own.
    assert component_tensors(base.storage, base.components["vae"])


def test_weights_are_turned_and_scaled_back() -> None:
    def stored(name: str, *shape: int) -> Stored:
        tensor = StoredTensor(
            name=name, file="a", dtype="F32", shape=shape, offset=0, size_bytes=4 * int(np.prod(shape))
        )
        return Stored(tensor=tensor)

    def read(_: StoredTensor, first: int, count: int) -> Any:
        return np.arange(first, first + count, dtype=np.float32)

    scales = (("scaled", 4.0), ("both", 0.5))
    restore = AsInPyTorch(component="c", transposed=("turned", "both"), scales=scales)
    made = restore({name: stored(name, 2, 3) for name in ("plain", "turned", "scaled", "both")})
    found = {
        name: evaluate_range(each, 0, 6, read).reshape(each.shape).tolist() for name, each in made.items()
    }
    plain = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert found == {
        "plain": plain.tolist(),
        "turned": plain.T.tolist(),
        "scaled": (plain / 4).tolist(),
        "both": (plain.T * 2).tolist(),
    }

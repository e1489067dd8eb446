"""Adapters and a package of a few operators: what is read, merged and refused, without PyTorch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from safetensors.numpy import save_file

from conversions.package.layout import Package
from conversions.weights.lora.request import AdapterRequest
from sdsetup.errors import SetupError
from sdsetup.runtime.adapters import PackageAdapters, open_adapters
from sdsetup.runtime.package import open_for_images
from sdsetup.runtime.textual_inversion import AddedRows, PackageEmbeddings
from tests.sdsetup import toy_package

MODULE = "down_blocks.0.resnets.0.conv1"
WEIGHT = f"{MODULE}.weight"


@pytest.fixture(params=["fp32", "fp16"])
def package(tmp_path: Path, request: pytest.FixtureRequest) -> Package:
    """A toy package whose U-Net's kernel has the name of one of Stable Diffusion's."""
    folder = toy_package.write(tmp_path / "package", precision=request.param)
    path = folder / "unet" / "model.onnx"
    model = onnx.load(path)
    for node in model.graph.node:
        node.input[:] = [WEIGHT if name == "kernel" else name for name in node.input]
    for tensor in model.graph.initializer:
        tensor.name = WEIGHT if tensor.name == "kernel" else tensor.name
    (folder / "unet" / "model.onnx_data").unlink()
    onnx.save(model, path, save_as_external_data=True, location="model.onnx_data", size_threshold=100)
    toy_package.write_manifest(folder, request.param)
    return open_for_images(folder)


def kernel(package: Package) -> np.ndarray[Any, Any]:
    model = onnx.load(package.graph("unet"))
    return next(numpy_helper.to_array(each) for each in model.graph.initializer if each.name == WEIGHT)


def adapter(path: Path, seed: int, **further: np.ndarray[Any, Any]) -> tuple[Path, np.ndarray[Any, Any]]:
    """Write a LoRA of rank 2; return it and its change of the kernel."""
    random = np.random.default_rng(seed)
    down = random.standard_normal((2, 4, 3, 3)).astype(np.float32)
    up = random.standard_normal((4, 2, 1, 1)).astype(np.float32)
    tensors = {f"unet.{MODULE}.lora_A.weight": down, f"unet.{MODULE}.lora_B.weight": up, **further}
    save_file(tensors, path)
    return path, np.einsum("or,rikl->oikl", up[:, :, 0, 0], down)


def test_adapters_are_added_one_after_the_other(package: Package, tmp_path: Path) -> None:
    files = [adapter(tmp_path / f"{seed}.safetensors", seed) for seed in (1, 2)]
    requests = [
        AdapterRequest(path=path, weight=weight) for (path, _), weight in zip(files, (0.5, -2.0), strict=True)
    ]
    opened = open_adapters(package, requests)
    assert [(each.path, each.weight) for each in opened.applied] == [
        (str(tmp_path / "1.safetensors"), 0.5),
        (str(tmp_path / "2.safetensors"), -2.0),
    ]
    assert opened.notices == ()
    merged = opened.weights(package, "unet")
    before = kernel(package)
    wanted = before.astype(np.float32) + 0.5 * files[0][1] - 2 * files[1][1]
    assert list(merged) == [WEIGHT]
    assert merged[WEIGHT].dtype == before.dtype
    np.testing.assert_allclose(merged[WEIGHT], wanted, atol=1e-5 if before.dtype == np.float32 else 1e-2)
    assert opened.weights(package, "text_encoder") == {}
    assert opened.edits(package, "unet", merged) == ()
    np.testing.assert_array_equal(kernel(package), before)


def test_no_adapter_changes_nothing(package: Package) -> None:
    assert open_adapters(package, []) == PackageAdapters()
    assert PackageAdapters().weights(package, "unet") == {}


def test_keys_of_nothing_in_the_package_are_left_out_where_that_is_wanted(
    package: Package, tmp_path: Path
) -> None:
    strange = {f"unet.elsewhere.lora_{part}.weight": np.ones((2, 2), np.float32) for part in "AB"}
    path, _ = adapter(tmp_path / "a.safetensors", 1, **strange)
    with pytest.raises(SetupError, match="elsewhere"):
        open_adapters(package, [AdapterRequest(path=path)])
    opened = open_adapters(package, [AdapterRequest(path=path)], ignore_unmatched=True)
    assert "elsewhere" in opened.notices[0]
    assert list(opened.weights(package, "unet")) == [WEIGHT]


def test_a_change_beyond_the_range_of_float16_is_refused(package: Package, tmp_path: Path) -> None:
    path, _ = adapter(tmp_path / "a.safetensors", 1)
    opened = open_adapters(package, [AdapterRequest(path=path, weight=1e7)])
    if package.precision("unet") == "fp32":
        assert np.isfinite(opened.weights(package, "unet")[WEIGHT]).all()
        return
    with pytest.raises(SetupError, match=rf"{WEIGHT} of unet is not finite with .*a.safetensors") as caught:
        opened.weights(package, "unet")
    assert caught.value.code == "lora.not_finite"


@pytest.mark.parametrize(("submodel", "refused"), [("unet", True), ("vae_decoder", False)])
def test_quantised_weights_are_not_added_to(
    package: Package, tmp_path: Path, submodel: str, refused: bool
) -> None:
    path = package.folder / "manifest.json"
    manifest = json.loads(path.read_text("utf-8"))
    manifest["submodels"][submodel]["precision"] = "int4"
    toy_package.write_json(path, manifest)
    again = open_for_images(package.folder)
    file, _ = adapter(tmp_path / "a.safetensors", 1)
    if not refused:
        assert open_adapters(again, [AdapterRequest(path=file)]).applied
        return
    with pytest.raises(SetupError, match=r"unet of .* keeps its weights in int4") as caught:
        open_adapters(again, [AdapterRequest(path=file)])
    assert caught.value.code == "lora.quantized"
    assert "--precision int4" in caught.value.hint


def test_only_text_encoders_with_new_rows_are_resized(package: Package) -> None:
    rows: Mapping[str, AddedRows] = {
        "text_encoder": AddedRows(table="table", first=3, vectors=np.ones((1, 8), np.float32))
    }
    adapters = PackageAdapters(embeddings=PackageEmbeddings(rows=rows))
    weights = adapters.weights(package, "text_encoder")
    assert list(weights) == ["table"]
    assert len(adapters.edits(package, "text_encoder", weights)) == 1
    assert adapters.edits(package, "unet", {}) == ()

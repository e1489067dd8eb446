"""What submodels of a package need, as its manifest foretells it."""

from __future__ import annotations

from pathlib import Path

import pytest

from conversions.forecast import forecast
from conversions.package.layout import Package
from conversions.package.needs import device_bytes, memory_entry, weight_bytes
from conversions.pipeline_graphs import package_graphs
from tests.demo_package import demo_package


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    return demo_package(tmp_path_factory.mktemp("needs") / "package")


def test_memory_is_foretold_for_an_image_of_the_native_size(package: Package) -> None:
    entry = memory_entry(package)
    assert entry == package.manifest["memory"]
    assert (entry["width"], entry["height"]) == (128, 128)
    needs = forecast(package_graphs(package), package.recipe.native).needs
    assert [each.submodel for each in needs] == list(package.submodel_names)
    for need in needs:
        found = entry["submodels"][need.submodel]
        assert found["weights_bytes"] == need.on_device.weights_bytes
        assert found["activation_bytes"] == need.on_device.activation_bytes
        assert found["device_bytes"] == need.total_bytes == device_bytes(package, need.submodel)
        assert need.total_bytes > need.on_device.weights_bytes + need.on_device.activation_bytes


def test_what_a_manifest_does_not_foretell_is_not_known(package: Package) -> None:
    without = {name: entry for name, entry in package.manifest.items() if name != "memory"}
    assert device_bytes(Package(folder=package.folder, manifest=without), "unet") is None
    empty = {**without, "memory": {}}
    assert device_bytes(Package(folder=package.folder, manifest=empty), "unet") is None
    assert device_bytes(package, "other") is None


def test_weights_on_the_disk_are_all_files_but_the_graph(package: Package, tmp_path: Path) -> None:
    weights = package.folder / "unet" / "diffusion_pytorch_model.safetensors"
    assert weight_bytes(package, "unet") == weights.stat().st_size
    mixed = demo_package(tmp_path / "mixed", precision="fp32", precisions={"unet": "int8"})
    parts = [path for path in (mixed.folder / "unet").iterdir() if path.suffix not in (".onnx", ".json")]
    assert weight_bytes(mixed, "unet") == sum(path.stat().st_size for path in parts)

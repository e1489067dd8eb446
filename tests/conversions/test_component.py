"""Components of the checkpoint that ships, made into submodels: what is linked, written, told and refused."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from safetensors.numpy import load_file, save_file

from conversions.checkpoint.folder import open_folder
from conversions.component import Job, demand_space, linked_name
from conversions.errors import ConversionError
from conversions.events import Advanced, Event, Finished, Listener, Notice, Started, ignore
from conversions.options import Options
from conversions.package.layout import DATA_FILE, Package, Staging
from conversions.package.manifest import KEPT
from conversions.plan import make_plan
from conversions.weights.link import FileHashes
from sdsetup.demo import checkpoint_path
from tests.demo_package import demo_package

UNET = "unet/diffusion_pytorch_model.safetensors"
VAE = "vae/diffusion_pytorch_model.safetensors"


@pytest.fixture
def demo(tmp_path: Path) -> Path:
    return Path(shutil.copytree(checkpoint_path(), tmp_path / "demo"))


def made(folder: Path, listener: Listener = ignore, **options: Any) -> Package:
    return demo_package(folder.parent / "package", open_folder(folder), listener, **options)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def weights_of(package: Package, submodel: str) -> dict[str, set[str]]:
    """Return where a graph says its weights lie: the names of files and what they hold."""
    model = onnx.load(package.graph(submodel), load_external_data=False)
    found: dict[str, set[str]] = {}
    for each in model.graph.initializer:
        if each.external_data:
            entry = {item.key: item.value for item in each.external_data}
            found.setdefault(entry["location"], set()).add(each.name)
    return found


def test_weights_of_one_precision_lie_in_the_checkpoint_s_own_files(demo: Path) -> None:
    told: list[Event] = []
    package = made(demo, told.append)
    linked = package.folder / "unet" / "diffusion_pytorch_model.safetensors"
    assert linked.stat().st_ino == (demo / UNET).stat().st_ino
    assert set(weights_of(package, "unet")) == {linked.name}
    assert not (package.folder / "unet" / DATA_FILE).exists()
    assert package.files[f"unet/{linked.name}"].sha256 == sha256(demo / UNET)
    assert package.files[f"unet/{linked.name}"].size_bytes == (demo / UNET).stat().st_size
    # Both halves of the autoencoder read one file.
    for half in ("vae_encoder", "vae_decoder"):
        assert set(weights_of(package, half)) == {linked.name}
    assert package.manifest["checkpoint"]["sha256"][UNET] == sha256(demo / UNET)
    size = (demo / UNET).stat().st_size
    assert [each for each in told if isinstance(each, Started) and each.task == "unet"] == [
        Started(task="unet", label="unet: linking weights", total=size, unit="bytes")
    ]
    advanced = [each.done for each in told if isinstance(each, Advanced) and each.task == "unet"]
    assert advanced == sorted(advanced)
    assert advanced[-1] == size
    assert told.count(Finished(task="unet")) == 1


def test_weights_of_another_precision_are_written(demo: Path) -> None:
    told: list[Event] = []
    package = made(demo, told.append, precision="fp32")
    assert set(weights_of(package, "unet")) == {DATA_FILE}
    data = package.folder / "unet" / DATA_FILE
    assert package.files[f"unet/{DATA_FILE}"].sha256 == sha256(data)
    assert package.files[f"unet/{DATA_FILE}"].size_bytes == data.stat().st_size
    assert not list(package.folder.glob("*/*.safetensors"))
    started = next(each for each in told if isinstance(each, Started) and each.task == "unet")
    assert started.label == "unet: writing weights"
    stored = sum(value.nbytes for value in load_file(demo / UNET).values())
    assert started.total == stored
    assert [each.done for each in told if isinstance(each, Advanced) and each.task == "unet"][-1] == stored
    assert json.loads((package.folder / "unet/config.json").read_text("utf-8"))["in_channels"] == 4


def test_a_submodel_links_no_file_that_it_does_not_use(demo: Path) -> None:
    package = made(demo, precisions={"vae_encoder": "fp32"})
    assert set(weights_of(package, "vae_encoder")) == {DATA_FILE}
    assert set(weights_of(package, "vae_decoder")) == {"diffusion_pytorch_model.safetensors"}
    assert not list((package.folder / "vae_encoder").glob("*.safetensors"))
    assert {name for name in package.files if name.startswith("vae_encoder/")} == {
        f"vae_encoder/{name}" for name in (DATA_FILE, "model.onnx", "config.json")
    }


def test_a_copy_links_nothing(demo: Path) -> None:
    package = made(demo, copy=True)
    assert not list(package.folder.glob("*/*.safetensors"))
    assert set(weights_of(package, "vae_decoder")) == {DATA_FILE}


def spoiled(folder: Path, file: str, change: Callable[[dict[str, Any]], None]) -> Path:
    tensors = load_file(folder / file)
    change(tensors)
    save_file(tensors, folder / file)
    return folder


def test_weights_that_nobody_reads_are_told(demo: Path) -> None:
    told: list[Event] = []
    made(spoiled(demo, UNET, lambda tensors: tensors.update(extra=np.ones(3, np.float16))), told.append)
    (notice,) = (each.text for each in told if isinstance(each, Notice))
    assert "extra" in notice


def test_weights_that_float16_does_not_hold_are_named(demo: Path) -> None:
    def enlarge(tensors: dict[str, Any]) -> None:
        for name in ("conv_in.bias", "conv_out.bias"):
            tensors[name] = np.full_like(tensors[name], -1e5, np.float32)

    with pytest.raises(ConversionError) as caught:
        made(spoiled(demo, UNET, enlarge))
    assert caught.value.code == "weights.overflow"
    form = r"65504: unet: conv_\w+\.bias \(largest 100000\) and 1 more\.$"
    assert re.search(form, caught.value.message)
    assert caught.value.details == {"submodels": ("unet",)}
    assert not (demo.parent / "package").exists()


def test_one_weight_that_float16_does_not_hold_is_alone(demo: Path) -> None:
    def enlarge(tensors: dict[str, Any]) -> None:
        tensors["conv_in.bias"] = np.full_like(tensors["conv_in.bias"], 7e4, np.float32)

    with pytest.raises(ConversionError, match=r"unet: conv_in\.bias \(largest 70000\)\.$"):
        made(spoiled(demo, UNET, enlarge))


def test_weights_that_are_no_numbers_are_the_checkpoint_s_fault(demo: Path) -> None:
    def spoil(tensors: dict[str, Any]) -> None:
        tensors["conv_in.bias"][0] = np.nan

    with pytest.raises(ConversionError) as caught:
        made(spoiled(demo, UNET, spoil))
    assert caught.value.code == "weights.not_finite"


def test_nodes_that_stay_in_float32_are_told(demo: Path) -> None:
    told: list[Event] = []
    package = made(demo, told.append, target="directml")
    notices = {each.text.partition(":")[0]: each.text for each in told if isinstance(each, Notice)}
    assert set(notices) == {"text_encoder", "unet", "vae_encoder", "vae_decoder"}
    form = r"unet: (\d+) of \d+ nodes stay in float32, since \S+ .*was not measured.*\."
    found = re.fullmatch(form, notices["unet"])
    assert found is not None
    assert int(found[1]) == len(package.manifest["submodels"]["unet"][KEPT]["nodes"])


def test_a_linked_file_keeps_its_own_name() -> None:
    assert linked_name("unet/model.safetensors") == linked_name("model.safetensors") == "model.safetensors"


@pytest.mark.parametrize(
    ("linked", "copied", "whole", "stops"),
    [
        (set(), 0, 1 << 62, True),
        ({"file"}, 0, 1 << 62, False),
        ({"file"}, 1 << 62, 1 << 62, True),
        (set(), 1 << 62, 0, False),
    ],
)
def test_a_disk_that_is_too_small_is_refused_before_anything_is_written(
    linked: set[str], copied: int, whole: int, stops: bool, demo: Path, tmp_path: Path
) -> None:
    opened = open_folder(demo)
    plan = make_plan(opened, Options(target="cpu"), None)
    staging = Staging(tmp_path / "package", plan.fingerprint)
    staging.begin()
    part = replace(plan.components[0], copied_bytes=copied, package_bytes=whole)
    with FileHashes(opened.storage) as hashes:
        job = Job(plan=plan, checkpoint=opened, staging=staging, hashes=hashes, listener=ignore)
        if not stops:
            demand_space(job, [part], {part.name: linked})
            return
        with pytest.raises(ConversionError) as caught:
            demand_space(job, [part], {part.name: linked})
    assert caught.value.code == "package.disk_full"
    needs = f"The package needs {(1 << 62) / 1e9:.1f} GB in {staging.folder.parent}; "
    assert caught.value.message.startswith(needs)
    assert caught.value.message.endswith(" GB are free.")

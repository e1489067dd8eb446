"""Where a model's checkpoint is found: here, in the cache, on the Hub; and what is fetched of it."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from conversions.errors import ConversionError
from conversions.events import ignore
from sdsetup import demo
from sdsetup.bootstrap.command_name import quoted
from sdsetup.checkpoint_source import CheckpointRequest, Source, find
from sdsetup.errors import SetupError, UsageError
from sdsetup.hub import HubStorage
from tests.hub_server import HubServer, Repo
from tests.sdsetup import toy_package
from tests.single_files import write_single_file

# Of a plan of the conversion: what is written where weights can be linked, and where they cannot.
PLAN: Any = SimpleNamespace(copied_bytes=10, package_bytes=2000)
UNET = "unet/diffusion_pytorch_model.safetensors"


def found(model: object, **options: Any) -> Source:
    return find(CheckpointRequest(model=str(model), **options), ignore)


def refused(code: str, model: object, **options: Any) -> SetupError:
    with pytest.raises(SetupError) as caught:
        found(model, **options)
    assert caught.value.code == code
    return caught.value


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return shutil.copytree(demo.checkpoint_path(), tmp_path / "checkpoint")


@pytest.fixture
def hub(hub_here: HubServer) -> HubServer:
    """A Hub that has the demo."""
    files = {
        path.relative_to(demo.checkpoint_path()).as_posix(): path.read_bytes()
        for path in demo.checkpoint_path().rglob("*")
        if path.is_file()
    }
    hub_here.add(Repo(repo_id="acme/tiny", files=files))
    return hub_here


def test_what_is_not_wanted_is_named() -> None:
    assert CheckpointRequest(model="x").without == ()
    assert CheckpointRequest(model="x", safety_checker=False, t5=False).without == ("safety_checker", "t5")


def test_the_demo_and_a_folder_are_here(folder: Path, tmp_path: Path) -> None:
    for source, origin in ((found("demo"), "demo"), (found(folder), folder.name)):
        assert source.download is None
        assert source.checkpoint.origin == origin
        assert source.fetch(tmp_path / "out", PLAN, ignore) is source.checkpoint
        with source.using as used:
            assert used is None


def test_a_variant_of_a_folder_is_taken(folder: Path) -> None:
    assert found(folder).checkpoint.components["unet"].weights.files == (UNET,)
    half = UNET.replace(".safetensors", ".fp16.safetensors")
    shutil.copy(folder / UNET, folder / half)
    assert found(folder, variant="fp16").checkpoint.components["unet"].weights.files == (half,)
    assert found(folder).checkpoint.components["unet"].weights.files == (UNET,)


def test_weights_that_can_be_linked_are_not_written(folder: Path, tmp_path: Path) -> None:
    source = found(folder)
    assert source.bytes_to_write(tmp_path / "not" / "there", PLAN) == 10
    if sys.platform == "linux":
        assert source.bytes_to_write(Path("/proc"), PLAN) == 2000


def test_a_package_is_no_checkpoint(tmp_path: Path) -> None:
    package = toy_package.write(tmp_path / "package")
    error = refused("convert.is-package", package)
    assert f'sdsetup generate {quoted(str(package))} "PROMPT";' in error.hint
    (package / "manifest.json").rename(package / "other.json")
    with pytest.raises(ConversionError, match="has no weights"):
        found(package)
    (package / "other.json").rename(package / "manifest.json")
    for graph in package.glob("*/model.onnx"):
        graph.unlink()
    with pytest.raises(ConversionError, match="has no weights"):
        found(package)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"base": "x"}, "--base"),
        ({"autoencoder": "x"}, "--vae"),
        ({"prediction_type": "x"}, "--prediction-type"),
        ({"base": "x", "prediction_type": "y"}, "--base and --prediction-type"),
    ],
)
def test_options_of_single_files_are_for_them_alone(
    options: dict[str, str], named: str, folder: Path
) -> None:
    with pytest.raises(UsageError) as caught:
        found(folder, **options)
    assert caught.value.code == "convert.only-single-files"
    assert caught.value.message.startswith(f"{named} can only be used with a single file")


def test_a_model_of_the_hub_is_fetched_once(hub: HubServer, tmp_path: Path) -> None:
    repo = hub.repos["acme/tiny"]
    source = found("acme/tiny")
    assert (source.checkpoint.origin, source.checkpoint.commit) == ("acme/tiny", repo.head)
    assert source.download is not None
    assert source.download.download_bytes > 10**6
    assert isinstance(source.checkpoint.storage, HubStorage)
    fetched = source.fetch(tmp_path / "out", PLAN, ignore)
    assert (fetched.origin, fetched.commit) == ("acme/tiny", repo.head)
    path = fetched.storage.path_of(UNET)
    assert path is not None
    assert path.read_bytes() == (demo.checkpoint_path() / UNET).read_bytes()
    hub.sent_bytes = 0
    again = found("acme/tiny")
    assert again.download is None
    assert (again.checkpoint.origin, again.checkpoint.commit) == ("acme/tiny", repo.head)
    assert again.checkpoint.storage.path_of(UNET) == path
    assert hub.sent_bytes == 0


def test_a_model_that_is_not_kept_stays_on_the_hub(hub: HubServer, tmp_path: Path) -> None:
    source = found("acme/tiny", keep=False)
    assert source.checkpoint.commit == hub.repos["acme/tiny"].head
    with source.using:
        assert source.fetch(tmp_path / "out", PLAN, ignore) is source.checkpoint
    weights = [
        path for path in (tmp_path / "hub").rglob("*") if path.is_file() and path.stat().st_size > 10**6
    ]
    assert not weights


@pytest.mark.torch
@pytest.mark.parametrize("base", ["demo", "folder"])
def test_a_single_file_has_the_rest_from_its_base(base: str, folder: Path, tmp_path: Path) -> None:
    file = write_single_file(folder, tmp_path / "tiny.safetensors")
    source = found(file, base=base if base == "demo" else str(folder))
    assert source.checkpoint.origin == "tiny.safetensors"
    assert source.download is None
    assert "unet" in source.checkpoint.components

"""What the public functions are asked for arrives, and what they are not asked for is the usual."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import conversions
from conversions import convert, graphs, inspect, open_checkpoint, verify
from conversions.checkpoint.folder import Checkpoint
from conversions.conversion import Checks
from conversions.errors import ConversionError
from conversions.events import Event
from conversions.options import Options
from conversions.package.layout import open_package
from conversions.providers.devices import CPU
from conversions.verification import references
from sdsetup.demo import checkpoint_path

UNET = "unet/diffusion_pytorch_model"


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("api") / "package"
    return convert(open_checkpoint(checkpoint_path()), folder, target="cpu", verify_on=None).package.folder


@pytest.fixture
def unusual(tmp_path: Path) -> tuple[Checkpoint, Path]:
    """A checkpoint of which a graph ships with nothing, and a folder that has it."""
    folder = Path(shutil.copytree(checkpoint_path(), tmp_path / "unusual"))
    path = folder / "text_encoder" / "config.json"
    config = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps({**config, "layer_norm_eps": 1e-3}), "utf-8")
    opened = open_checkpoint(folder)
    encoder = next(each for each in opened.submodels if each.name == "text_encoder")
    graph = graphs.find(encoder.kind, config, None)
    assert graph is not None
    graphs.keep(graphs.pack(graph), encoder.kind, opened.config_of(encoder), tmp_path / "graphs")
    return opened, tmp_path / "graphs"


def test_all_that_is_public_is_there() -> None:
    for name in conversions.__all__:
        assert getattr(conversions, name) is not None


def test_nothing_else_is_public() -> None:
    with pytest.raises(AttributeError, match="module 'conversions' has no attribute 'draw'"):
        conversions.draw  # noqa: B018


@pytest.mark.parametrize(("before", "after"), [(None, "1"), ("0", "0")])
def test_onnx_runtime_looks_up_no_server_unless_somebody_wants_it(before: str | None, after: str) -> None:
    kept = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    given = {} if before is None else {"ORT_DISABLE_TELEMETRY": before}
    script = "import os, conversions; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env={**kept, **given}, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == after


def test_a_folder_or_a_file_is_opened_by_its_path_or_its_text(tmp_path: Path) -> None:
    assert set(open_checkpoint(str(checkpoint_path())).components) == {"text_encoder", "unet", "vae"}
    file = tmp_path / "one.safetensors"
    shutil.copy(checkpoint_path() / f"{UNET}.safetensors", file)
    with pytest.raises(ConversionError) as caught:
        open_checkpoint(file)
    assert caught.value.code == "family.unsupported"  # not that it is no folder


def test_weights_of_a_variant_are_taken_where_they_are_preferred(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(checkpoint_path(), tmp_path / "two"))
    shutil.copy(folder / f"{UNET}.safetensors", folder / f"{UNET}.fp16.safetensors")
    assert open_checkpoint(folder, variant="fp16").components["unet"].weights.variant == "fp16"
    assert open_checkpoint(folder).components["unet"].weights.variant == ""


def test_what_is_not_asked_for_is_a_float16_package_for_directml(tmp_path: Path) -> None:
    made = convert(open_checkpoint(checkpoint_path()), str(tmp_path / "package"), verify_on=None)
    assert made.plan.options == Options(
        precision="fp16", target="directml", precisions={}, safety_checker=True
    )
    assert made.report is None
    assert made.package.folder == tmp_path / "package"
    assert "parity" not in made.package.manifest


def test_what_is_asked_for_is_converted(tmp_path: Path) -> None:
    told: list[Event] = []
    opened = open_checkpoint(checkpoint_path())

    def converted(**more: bool) -> Options:
        return convert(
            opened,
            tmp_path / "package",
            precision="fp32",
            target="cpu",
            precisions={"unet": "fp16"},
            safety_checker=False,
            verify_on=None,
            listener=told.append,
            **more,
        ).plan.options

    assert converted() == Options(
        precision="fp32", target="cpu", precisions={"unet": "fp16"}, safety_checker=False
    )
    assert told
    submodels = open_package(tmp_path / "package").manifest["submodels"]
    assert [submodels[name]["precision"] for name in ("unet", "vae_decoder")] == ["fp16", "fp32"]
    with pytest.raises(ConversionError) as caught:
        converted()
    assert caught.value.code == "package.exists"
    converted(overwrite=True)


def test_graphs_are_looked_for_where_they_are_kept(
    unusual: tuple[Checkpoint, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint, cache = unusual
    monkeypatch.setattr("conversions.graphs.obtain.find_spec", lambda _: None)
    with pytest.raises(ConversionError) as caught:
        convert(checkpoint, tmp_path / "package", target="cpu", verify_on=None)
    assert caught.value.code == "graph.needs_pytorch"
    assert convert(
        checkpoint, tmp_path / "package", target="cpu", verify_on=None, graph_cache=str(cache)
    ).package.submodel_names


def test_what_a_conversion_is_checked_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checks = []
    monkeypatch.setattr("conversions.api.carry_out", lambda *_, **given: checks.append(given["checks"]))
    monkeypatch.setattr(references, "find_spec", lambda _: None)
    checkpoint, elsewhere = open_checkpoint(checkpoint_path()), replace(CPU, name="elsewhere")
    convert(checkpoint, tmp_path / "package", target="cpu")
    convert(checkpoint, tmp_path / "package", target="cpu", verify_on=elsewhere, reference="pytorch")
    convert(checkpoint, tmp_path / "package", target="cpu", verify_on=None, reference="pytorch")
    assert checks == [
        Checks(device=CPU, reference="float32_graph"),
        Checks(device=elsewhere, reference="pytorch"),
        None,
    ]


@pytest.mark.skipif(sys.platform == "win32", reason="slow under Wine")
def test_a_conversion_is_verified_on_the_cpu_with_what_is_installed(
    unusual: tuple[Checkpoint, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint, cache = unusual
    monkeypatch.setattr(references, "find_spec", lambda _: None)
    told: list[Event] = []
    made = convert(
        checkpoint,
        tmp_path / "package",
        target="cpu",
        precision="fp32",
        graph_cache=cache,
        listener=told.append,
    )
    assert made.report is not None
    assert made.report.passed
    assert made.report.reference == "float32_graph"
    assert {each.placement.provider for each in made.report.submodels} == {"CPUExecutionProvider"}
    assert all(each.parity is not None for each in made.report.submodels)
    again = verify(
        str(made.package.folder),
        checkpoint,
        reference="float32_graph",
        graph_cache=cache,
        listener=told.append,
    )
    assert again.passed
    assert [each.parity for each in again.submodels] == [each.parity for each in made.report.submodels]


@pytest.mark.skipif(sys.platform == "win32", reason="slow under Wine")
def test_without_a_checkpoint_no_numbers_are_compared(package: Path) -> None:
    told: list[Event] = []
    report = verify(package, listener=told.append)
    assert report.passed
    assert {each.parity for each in report.submodels} == {None}
    assert told


def test_a_model_is_inspected_however_it_is_given(package: Path) -> None:
    of_package = inspect(str(package))
    assert of_package.what == "package"
    assert inspect(open_package(package)) == of_package
    of_checkpoint = inspect(checkpoint_path())
    assert of_checkpoint.what == "checkpoint"
    assert inspect(open_checkpoint(checkpoint_path())) == of_checkpoint
    with pytest.raises(ConversionError):
        inspect(package / "unet")

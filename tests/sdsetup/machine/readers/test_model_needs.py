"""Plans of real checkpoints, made in the process of its own that the doctor starts."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conversions.events import ignore
from conversions.forecast import forecast
from conversions.options import Options
from conversions.package.layout import open_package
from conversions.pipeline_graphs import package_graphs
from conversions.recipe import ImageSize
from sdsetup import demo, disk_space, workflow
from sdsetup.checkpoint_source import CheckpointRequest
from sdsetup.machine.facts import Plan, Questions
from sdsetup.machine.readers import model_needs as probe
from tests.hub_server import HubServer, Repo
from tests.hub_server.client import Machine

# As the Hub's own tests are: cold processes that load half the program, several a test.
slow_under_wine = pytest.mark.skipif(sys.platform == "win32", reason="slow under Wine")

SIZED = ("memory.ram", "storage.cache-space", "storage.output-space")


def _plan(model: str, folder: Path, *, offline: bool = True) -> Plan:
    return probe.read(Questions(output=folder, converting=model, offline=offline))


def test_without_a_model_nothing_is_planned(tmp_path: Path) -> None:
    assert _plan("", tmp_path) == Plan()


@pytest.mark.parametrize("named", ["demo", "folder"])
def test_a_plan_says_what_the_conversion_really_takes(named: str, tmp_path: Path) -> None:
    found = _plan("demo" if named == "demo" else str(demo.checkpoint_path()), tmp_path)
    assert found.error == ""
    assert found.download_bytes == 0
    options = Options(target=workflow.default_target())
    request = workflow.ConvertRequest(
        checkpoint_request=CheckpointRequest(model="demo"),
        options=options,
        output=tmp_path / "package",
        verify=False,
    )
    package = workflow.convert_model(request, ignore).package.folder
    written = sum(file.stat().st_size for file in package.glob("*/model.onnx_data"))
    if disk_space.same_volume(demo.checkpoint_path(), workflow.package_folder("demo", options)):
        # The file pads its tensors, and an unverified package for DirectML holds its norms in float32.
        assert found.package_bytes == pytest.approx(written, rel=0.1, abs=100_000)
    else:
        assert found.package_bytes > written  # nothing can be linked where packages go by themselves
    memory = forecast(package_graphs(open_package(package)), ImageSize(width=found.side, height=found.side))
    # Of an unverified package for DirectML all norms are float32; the plan is that of a verified one.
    assert found.vram_bytes == pytest.approx(memory.device_bytes, rel=0.01)
    assert found.vram_least_bytes == pytest.approx(memory.staged_bytes, rel=0.01)
    assert found.side == 128
    # The target is the CPU, and a first image is made there.
    assert found.ram_bytes >= memory.staged_cpu_bytes
    drawing = probe.read(Questions(output=tmp_path, drawing=str(package)))
    assert (drawing.vram_bytes, drawing.vram_least_bytes) == (memory.device_bytes, memory.staged_bytes)
    assert drawing.ram_bytes in (memory.cpu_bytes, memory.host_bytes)
    assert (drawing.side, drawing.converting, drawing.download_bytes) == (128, False, 0)


def test_a_folder_that_is_no_package_says_why_and_what_to_do(tmp_path: Path) -> None:
    found = probe.read(Questions(output=tmp_path, drawing=str(tmp_path)))
    assert found.code == "package.no_manifest"
    assert "convert" in found.hint


def test_a_folder_that_is_no_checkpoint_says_why_and_what_to_do(tmp_path: Path) -> None:
    found = _plan(str(tmp_path), tmp_path)
    assert found.error
    assert found.code.partition(".")[0] not in {"hub", "plan", ""}
    assert found.hint


def test_weights_that_are_pickles_are_not_opened(tmp_path: Path) -> None:
    checkpoint = shutil.copytree(demo.checkpoint_path(), tmp_path / "pickled")
    weights = checkpoint / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    found = _plan(str(checkpoint), tmp_path)
    assert "pickle" in f"{found.error} {found.hint}"


def test_a_plan_that_takes_too_long_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "_LIMIT_SECONDS", 0.01)
    found = _plan("demo", tmp_path)
    assert "within 0.01 s" in found.error
    assert found.code == ""


def test_planning_that_breaks_is_told_with_its_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "onnx_ir"
    broken.mkdir()
    (broken / "__init__.py").write_text("raise RuntimeError('torn in half')")
    monkeypatch.setattr(probe, "_ROOT", f"{tmp_path}{os.pathsep}{probe._ROOT}")
    assert "torn in half" in _plan("demo", tmp_path).error


@pytest.fixture(scope="module")
def hub() -> Iterator[HubServer]:
    root = demo.checkpoint_path()
    files = {path.relative_to(root).as_posix(): path for path in root.rglob("*") if path.is_file()}
    with HubServer() as server:
        server.add(Repo(repo_id="acme/demo", files=files))
        pickled = {
            name.replace("/model.safe", "/pytorch_model.safe").replace(".safetensors", ".bin"): path
            for name, path in files.items()
        }
        server.add(Repo(repo_id="acme/pickled", files=pickled))
        yield server


def _doctor(machine: Machine, model: str, *arguments: str) -> dict[str, Any]:
    only = ",".join(("model", *SIZED))
    done = machine.run_cold("doctor", "--for", "convert", model, "--only", only, "--json", *arguments)
    assert "Traceback" not in done.stderr
    document = json.loads(done.stdout)
    return {finding["id"]: finding for finding in document["findings"]}


@slow_under_wine
def test_a_model_of_the_hub_is_judged_by_its_plan_and_not_downloaded(hub: HubServer, tmp_path: Path) -> None:
    with Machine(endpoint=hub.endpoint, home=tmp_path) as machine:
        found = _doctor(machine, "acme/demo")
        assert found["model.plan"]["status"] == "ok", found
        weights = sum(path.stat().st_size for path in demo.checkpoint_path().rglob("*.safetensors"))
        assert f"downloads {weights / 1e6:.0f}"[:-1] in found["model.plan"]["evidence"]
        assert all("acme/demo, as its plan reckons" in found[name]["evidence"] for name in SIZED)
        assert not list(machine.cache.rglob("*.safetensors"))


@slow_under_wine
def test_offline_is_skipped_and_what_the_cache_holds_is_planned(hub: HubServer, tmp_path: Path) -> None:
    with Machine(endpoint=hub.endpoint, home=tmp_path) as machine:
        found = _doctor(machine, "acme/demo", "--offline")
        assert {finding["status"] for finding in found.values()} == {"skipped"}
        assert "--offline" in found["model.plan"]["evidence"]
        assert machine.run_cold("download", "acme/demo").code == 0
        found = _doctor(machine, "acme/demo", "--offline")
        assert {finding["status"] for finding in found.values()} == {"ok"}, found
        assert "downloads 0.0 MB" in found["model.plan"]["evidence"]


@slow_under_wine
def test_a_model_with_pickles_only_fails_with_the_way_out(hub: HubServer, tmp_path: Path) -> None:
    with Machine(endpoint=hub.endpoint, home=tmp_path) as machine:
        found = _doctor(machine, "acme/pickled")
        assert found["model.plan"]["status"] == "failure"
        assert "--allow-pickle" in found["model.plan"]["fix"]["says"]
        assert not list(machine.cache.rglob("*.bin"))

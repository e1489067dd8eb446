"""The package that makes the last steps: opened for a request, and refused where its latents are others."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from conversions.events import Event, Notice
from conversions.package.layout import Package
from sdsetup.errors import UsageError
from sdsetup.imaging.refiner import open_refiner
from sdsetup.imaging.request import Request
from sdsetup.runtime.package import open_for_images
from sdsetup.runtime.runner import LocalRunner
from sdsetup.runtime.start import DeviceRequest
from tests.sdsetup import toy_package

REQUEST = Request(prompt="a cat", steps=3, width=64, height=64, scheduler="euler")
ON_CPU = DeviceRequest(provider="cpu", low_vram=True)


@pytest.fixture
def base(tmp_path: Path) -> Package:
    return open_for_images(toy_package.write(tmp_path / "base"))


def other(folder: Path, **changed: float) -> Package:
    """Write a package whose decoder's configuration is changed."""
    toy_package.write(folder)
    path = folder / "vae_decoder" / "config.json"
    toy_package.write_json(path, json.loads(path.read_text("utf-8")) | changed)
    toy_package.write_manifest(folder)
    return open_for_images(folder)


def test_none_is_opened_where_none_is_named(base: Package) -> None:
    with open_refiner(REQUEST, base, ON_CPU, lambda _: None) as refiner:
        assert refiner is None


def test_a_refiner_runs_where_the_request_says(base: Package, tmp_path: Path) -> None:
    package = other(tmp_path / "refiner")
    request = replace(REQUEST, refiner=str(package.folder), refiner_start=0.3)
    heard: list[Event] = []
    with open_refiner(request, base, ON_CPU, heard.append) as refiner:
        assert refiner is not None
        assert refiner.start == 0.3
        assert refiner.pipeline.package == package
        runner = refiner.pipeline.runner
        assert isinstance(runner, LocalRunner)
        assert runner.low_memory
        announced = [event.text for event in heard if isinstance(event, Notice)]
        assert announced == [f"running on {runner.device}, one submodel at a time."]
        refiner.pipeline.generate(REQUEST)
        assert len(heard) > 1


def test_a_refiner_is_planned_without_what_the_first_package_does(base: Package, tmp_path: Path) -> None:
    package = other(tmp_path / "refiner")
    request = replace(REQUEST, refiner=str(package.folder))
    heard: list[Event] = []
    # The toy's decoder cannot be cut, which would be said if it were to run.
    with open_refiner(request, base, replace(ON_CPU, vae_tiling=True), heard.append) as refiner:
        assert refiner is not None
    (said,) = (event.text for event in heard if isinstance(event, Notice))
    assert said.startswith("running on")


def test_other_latents_are_refused(base: Package, tmp_path: Path) -> None:
    package = other(tmp_path / "refiner", scaling_factor=2.0)
    request = replace(REQUEST, refiner=str(package.folder))
    with (
        pytest.raises(UsageError, match=r"cannot refine images of .*base") as caught,
        open_refiner(request, base, ON_CPU, lambda _: None),
    ):
        pass
    assert caught.value.code == "generate.refiner"

"""The package that makes the last steps: opened for a request, and refused where its latents are others."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conversions.events import Event, Notice
from conversions.package.layout import Package
from sdsetup.errors import UsageError
from sdsetup.imaging.pipeline import Pipeline
from sdsetup.imaging.refiner import demand_refinable, open_refiner, use_of
from sdsetup.imaging.request import Request
from sdsetup.runtime.memory_plan import Use
from sdsetup.runtime.package import open_for_images
from sdsetup.runtime.runner import LocalRunner
from sdsetup.runtime.start import DeviceRequest, Start, prepare
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


def begin(base: Package, refiner: Package | None, heard: list[Event], **request: Any) -> Start:
    uses = [Use(package=base), *([] if refiner is None else [use_of(refiner)])]
    return prepare(uses, replace(ON_CPU, **request), REQUEST.size, heard.append)


def said(heard: list[Event]) -> list[str]:
    return [event.text for event in heard if isinstance(event, Notice)]


def test_none_is_opened_where_none_is_named(base: Package) -> None:
    assert demand_refinable(REQUEST, base) is None
    with open_refiner(None, REQUEST, begin(base, None, [])) as refiner:
        assert refiner is None


def test_a_refiner_runs_where_the_first_package_does(base: Package, tmp_path: Path) -> None:
    package = other(tmp_path / "refiner")
    request = replace(REQUEST, refiner=str(package.folder), refiner_start=0.3)
    heard: list[Event] = []
    begun = begin(base, package, heard)
    with open_refiner(demand_refinable(request, base), request, begun) as refiner:
        assert refiner is not None
        assert refiner.start == 0.3
        assert refiner.pipeline.package == package
        runner = refiner.pipeline.runner
        assert isinstance(runner, LocalRunner)
        assert runner.low_memory
        assert said(heard) == [f"running on {runner.device}, one submodel at a time."]
        refiner.pipeline.generate(REQUEST)
        assert len(heard) > 1


def test_the_first_package_is_closed_before_its_refiner_opens(base: Package, tmp_path: Path) -> None:
    """Where both do not fit: what is open at any moment is one submodel of either."""
    package = other(tmp_path / "refiner")
    request = replace(REQUEST, refiner=str(package.folder), refiner_start=0.5)
    heard: list[Event] = []
    begun = begin(base, package, heard)
    first, most = begun.runner(base), []
    assert isinstance(first, LocalRunner)
    with open_refiner(package, request, begun) as refiner:
        assert refiner is not None
        second = refiner.pipeline.runner
        assert isinstance(second, LocalRunner)
        for runner in (first, second):
            runner.listener = lambda _: most.append(len(first._open) + len(second._open))
        Pipeline(package=base, runner=first, refiner=refiner).generate(request)
    assert max(most) == 0  # whenever one opens, no other is open
    assert {*first.usage(), *second.usage()} == {"text_encoder", "unet", "vae_decoder"}
    assert second.usage().keys() == {"text_encoder", "unet"}


def test_a_refiner_is_planned_without_what_the_first_package_does(base: Package, tmp_path: Path) -> None:
    use = use_of(other(tmp_path / "refiner"))
    assert use.unused == {"vae_decoder"}


def test_other_latents_are_refused(base: Package, tmp_path: Path) -> None:
    package = other(tmp_path / "refiner", scaling_factor=2.0)
    request = replace(REQUEST, refiner=str(package.folder))
    with pytest.raises(UsageError, match=r"cannot refine images of .*base") as caught:
        demand_refinable(request, base)
    assert caught.value.code == "generate.refiner"

"""Sizes that are known before anything runs, against those of the runs."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from conversions.package.layout import Package
from conversions.providers.devices import CPU
from sdsetup.imaging.pipeline import Pipeline
from sdsetup.imaging.rehearsal import Rehearsal, rehearse
from sdsetup.imaging.request import Request, complete
from sdsetup.runtime import sessions
from sdsetup.runtime.package import open_for_images
from sdsetup.runtime.runner import LocalRunner
from tests.sdsetup import toy_package

LONG = " and ".join(["a red horse on the moon"] * 30)


@dataclass(kw_only=True)
class SizesOfRuns(LocalRunner):
    """A runner that also notes the sizes of each submodel's first run."""

    noted: dict[str, dict[str, int]] = field(default_factory=dict)

    def run(self, submodel: str, inputs: Any) -> Any:
        dimensions = sessions.dimensions_of(self.package.graph(submodel))
        self.noted.setdefault(submodel, sessions.sizes_of(dimensions, inputs))
        return super().run(submodel, inputs)


def assert_rehearsed(package: Package, request: Request) -> None:
    """Compare the sizes that a request's rehearsal tells with those of its runs."""
    runner = SizesOfRuns(package=package, device=CPU)
    pipeline = Pipeline(package=package, runner=runner)
    rehearsed = rehearse(pipeline, request)
    assert not runner.noted
    pipeline.generate(request)
    assert set(runner.noted) - {"vae_encoder"} == set(rehearsed)
    assert {name: runner.noted[name] for name in rehearsed} == rehearsed, request.task


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    return open_for_images(toy_package.write(tmp_path_factory.mktemp("packages") / "plain"))


@pytest.mark.parametrize(
    "choices",
    [
        {},
        {"prompt": LONG},
        {"guidance_scale": 1.0},
        {"images": 3, "width": 64, "height": 128},
    ],
)
def test_a_request_is_rehearsed_in_the_sizes_of_its_runs(package: Package, choices: dict[str, Any]) -> None:
    request = replace(Request(prompt="a red horse", steps=2), **choices)
    assert_rehearsed(package, complete(request, package))


@pytest.mark.parametrize(("channels", "masked"), [(4, False), (4, True), (9, True)])
def test_images_from_an_image_and_what_looks_at_them_are_rehearsed(
    channels: int, masked: bool, tmp_path: Path
) -> None:
    image, mask = tmp_path / "image.png", tmp_path / "mask.png"
    Image.new("RGB", (128, 64), "red").save(image)
    Image.new("L", (128, 64), 255).save(mask)
    kernel = np.zeros((4, channels, 3, 3), np.float32)
    graph = toy_package.GRAPHS["unet"].replace(
        "4, height, width] sample,", f"{channels}, height, width] sample,"
    )
    folder = toy_package.write(
        tmp_path / "package",
        encodes=True,
        objects_above=100.0,
        graphs={"unet": graph},
        change={"unet": {"kernel": kernel}},
    )
    toy_package.write_json(folder / "unet" / "config.json", {"in_channels": channels, "sample_size": 8})
    toy_package.write_manifest(folder)
    package = open_for_images(folder)
    request = Request(
        prompt="a red horse", steps=2, images=2, init_image=str(image), mask=str(mask) if masked else None
    )
    assert_rehearsed(package, complete(request, package))


def test_a_rehearsal_opens_nothing_and_says_nothing(package: Package) -> None:
    heard: list[Any] = []
    runner = LocalRunner(package=package, device=CPU, listener=heard.append)
    pipeline = Pipeline(package=package, runner=runner, listener=heard.append)
    assert rehearse(pipeline, complete(Request(prompt=LONG), package))
    assert (heard, runner.usage()) == ([], {})
    rehearsal = Rehearsal(package=package, device=CPU)
    assert not rehearsal.opens_ahead("unet")
    assert rehearsal.usage() == {}


def test_a_size_that_no_input_tells_is_one(package: Package) -> None:
    rehearsal = Rehearsal(package=package, device=CPU)
    outputs = rehearsal.run("vae_decoder", {"latent_sample": np.zeros((3, 4, 8, 16), np.float32)})
    shapes = {name: outputs[name].shape for name in outputs}
    assert shapes == {"sample": (3, 3, 1, 1)}
    assert outputs["sample"].dtype == np.float32
    assert rehearsal.sizes == {"vae_decoder": {"batch": 3, "height": 8, "width": 16}}

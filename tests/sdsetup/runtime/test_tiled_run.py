"""Images decoded in tiles, beside the same images decoded whole."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conversions.events import Advanced, Started
from conversions.package.layout import Package
from conversions.providers.devices import CPU
from sdsetup.runtime.runner import LocalRunner
from sdsetup.runtime.worker import WorkerRunner
from tests.demo_package import demo_package

Packages = Callable[[str], Package]


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Packages:
    folder = tmp_path_factory.mktemp("tiled")

    @cache
    def package(precision: str) -> Package:
        return demo_package(folder / precision, precision=precision)

    return package


def latents(width: int, height: int, images: int = 1) -> dict[str, Any]:
    numbers = np.random.default_rng(width + height).standard_normal((images, 4, height // 8, width // 8))
    return {"latent_sample": numbers.astype(np.float32)}


def decibels(image: Any, expected: Any) -> float:
    """Return the peak signal-to-noise ratio of pixels from -1 to 1."""
    error = float(np.mean((image.astype(np.float64) - expected) ** 2))
    return 10 * np.log10(4 / error) if error else np.inf


@pytest.mark.parametrize(("precision", "least"), [("fp16", 60), ("fp32", 90)])
@pytest.mark.parametrize(
    ("width", "height", "side", "images"),
    [
        (256, 256, 128, 1),
        (264, 520, 128, 1),  # of odd sizes in latents, which tiles do not divide
        (256, 136, 64, 2),
        (128, 128, 512, 1),  # one tile
    ],
)
def test_tiles_give_what_the_whole_gives(
    packages: Packages, precision: str, least: int, width: int, height: int, side: int, images: int
) -> None:
    inputs = latents(width, height, images)
    whole = LocalRunner(package=packages(precision), device=CPU).run("vae_decoder", inputs)["sample"]
    events: list[Any] = []
    runner = LocalRunner(
        package=packages(precision), device=CPU, tiles={"vae_decoder": side}, listener=events.append
    )
    tiled = runner.run("vae_decoder", inputs)["sample"]
    assert tiled.shape == whole.shape == (images, 3, height, width)
    assert tiled.dtype == np.float32
    assert decibels(tiled, whole) >= least
    (started,) = (event for event in events if isinstance(event, Started))
    assert started.total == max(event.done for event in events if isinstance(event, Advanced))
    assert started.total is not None and (started.total == 14) == (side == 512)
    assert len(runner.usage()["vae_decoder"].run_seconds) == 1


@pytest.mark.parametrize(("precision", "least"), [("fp16", 55), ("fp32", 90)])
@pytest.mark.parametrize(("width", "height", "side"), [(264, 520, 128), (256, 136, 64), (128, 128, 512)])
def test_tiles_are_encoded_as_the_whole_is(
    packages: Packages, precision: str, least: int, width: int, height: int, side: int
) -> None:
    pixels = np.random.default_rng(width).uniform(-1, 1, (2, 3, height, width)).astype(np.float32)
    whole, tiled = (
        LocalRunner(package=packages(precision), device=CPU, tiles=tiles).run(
            "vae_encoder", {"sample": pixels}
        )["latent_parameters"]
        for tiles in ({}, {"vae_encoder": side})
    )
    assert tiled.shape == whole.shape == (2, 8, height // 8, width // 8)
    assert decibels(tiled, whole) >= least


def test_no_seam_is_worse_than_what_lies_between(packages: Packages) -> None:
    inputs = latents(256, 256)
    whole = LocalRunner(package=packages("fp32"), device=CPU).run("vae_decoder", inputs)["sample"]
    runner = LocalRunner(package=packages("fp32"), device=CPU, tiles={"vae_decoder": 128})
    wrong = np.abs(runner.run("vae_decoder", inputs)["sample"] - whole)
    assert wrong.max() < 1e-4


def test_a_float16_decoder_runs_in_float32_in_tiles_too(packages: Packages) -> None:
    inputs = latents(128, 128)
    runners = [
        LocalRunner(package=packages("fp16"), device=CPU, tiles=tiles) for tiles in ({}, {"vae_decoder": 64})
    ]
    for runner in runners:
        runner.upcast_to_fp32("vae_decoder")
    whole, tiled = (runner.run("vae_decoder", inputs)["sample"] for runner in runners)
    assert decibels(tiled, whole) >= 90
    assert runners[1].usage()["vae_decoder"].upcast


def test_a_worker_process_decodes_in_tiles(packages: Packages) -> None:
    inputs, events = latents(128, 128), list[Any]()
    whole = LocalRunner(package=packages("fp32"), device=CPU).run("vae_decoder", inputs)["sample"]
    runner = WorkerRunner(
        package=packages("fp32"), device=CPU, tiles={"vae_decoder": 64}, listener=events.append
    )
    try:
        assert not runner.opens_ahead("vae_decoder")
        tiled = runner.run("vae_decoder", inputs)["sample"]
    finally:
        runner.close()
    assert decibels(tiled, whole) >= 90
    assert any(isinstance(event, Started) and event.unit == "tiles" for event in events)


def test_other_submodels_run_as_ever(packages: Packages, tmp_path: Path) -> None:
    runner = LocalRunner(package=packages("fp16"), device=CPU, tiles={"vae_decoder": 64})
    tokens = {"input_ids": np.zeros((1, packages("fp16").recipe.prompt_length), np.int32)}
    (text,) = packages("fp16").with_role("text")
    assert runner.run(text, tokens)
    assert set(runner.usage()) == {text}

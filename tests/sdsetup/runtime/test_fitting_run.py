"""Images whose decoder runs out of memory as a whole; ONNX Runtime's own arena is what has no more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conversions.events import Event, Started
from conversions.package.layout import Package
from conversions.providers.devices import CPU
from sdsetup.imaging.pipeline import Pipeline
from sdsetup.runtime.package import open_for_images
from sdsetup.runtime.runner import LocalRunner
from sdsetup.runtime.runner_pair import RunnerPair
from sdsetup.runtime.worker import WorkerRunner
from tests.demo_package import demo_package
from tests.sdsetup import toy_package
from tests.sdsetup.runtime.limited_memory import decode

LATENTS = np.random.default_rng(5).standard_normal((1, 4, 48, 48)).astype(np.float32)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    return demo_package(tmp_path_factory.mktemp("fitting") / "package", precision="fp32")


def test_a_decoder_that_runs_out_of_memory_finishes_the_image_in_tiles(package: Package) -> None:
    whole = Pipeline(package=package, runner=LocalRunner(package=package, device=CPU)).decode(LATENTS)
    decoded = decode(package.folder, 60, LATENTS)
    assert decoded.notices == (
        "the device has too little memory for vae_decoder: it runs in tiles of 256x256 from here on.",
    )
    assert decoded.pixels is not None
    assert np.abs(decoded.pixels.astype(int) - whole).max() <= 1


def test_where_tiles_need_too_much_one_message_says_what_to_do(package: Package) -> None:
    decoded = decode(package.folder, 4, LATENTS)
    assert not decoded.tasks
    assert [notice[-33:] for notice in decoded.notices] == [
        "in tiles of 256x256 from here on.",
        "in tiles of 128x128 from here on.",
    ]
    assert decoded.message == (
        "the device ran out of memory while running vae_decoder in tiles. use a smaller --width and --height."
    )


def test_tiles_that_were_forbidden_are_not_taken(package: Package) -> None:
    decoded = decode(package.folder, 60, LATENTS, may_tile=False)
    assert not decoded.notices
    assert decoded.message.startswith("the device ran out of memory while running vae_decoder. use")
    assert "--vae-tiling" in decoded.message


def test_a_decoder_that_cannot_be_cut_says_so(tmp_path: Path) -> None:
    toy = open_for_images(toy_package.write(tmp_path / "toy"))
    decoded = decode(toy.folder, 1, np.ones((1, 4, 1024, 1024), np.float32))
    assert not decoded.notices
    assert "vae_decoder runs in one piece: Resize" in decoded.message
    assert decoded.message.endswith("use a smaller --width and --height.")


def test_tiles_of_a_plan_are_made_smaller(package: Package) -> None:
    runner = LocalRunner(package=package, device=CPU, tiles={"vae_decoder": 512})
    assert runner.device.winograd
    assert [runner.shrink_tiles("vae_decoder") for _ in range(3)] == [256, 128, None]
    assert not runner.device.winograd  # it takes more memory
    assert runner.tiles == {"vae_decoder": 128}
    assert runner.shrink_tiles("unet") is None
    runner.tiles = {"vae_decoder": 192}
    assert runner.shrink_tiles("vae_decoder") == 128


def test_a_worker_is_replaced_by_one_that_decodes_in_tiles(package: Package) -> None:
    events: list[Event] = []
    worker = WorkerRunner(package=package, device=CPU, listener=events.append)
    inputs: dict[str, Any] = {"latent_sample": LATENTS[:, :, :16, :16]}
    main = LocalRunner(package=package, device=CPU)
    both = RunnerPair(main=main, other=worker, elsewhere=frozenset({"vae_decoder"}))
    try:
        whole = both.run("vae_decoder", inputs)["sample"]
        first = worker.process_id
        assert both.shrink_tiles("vae_decoder") == 256
        assert worker.process_id is None
        assert not worker.device.winograd
        assert not [event for event in events if isinstance(event, Started) and event.unit == "tiles"]
        tiled = both.run("vae_decoder", inputs)["sample"]
        assert worker.process_id not in (None, first)
    finally:
        both.close()
    assert [event for event in events if isinstance(event, Started) and event.unit == "tiles"]
    np.testing.assert_allclose(tiled, whole, atol=1e-4)

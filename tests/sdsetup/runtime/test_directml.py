"""Images through the true DirectML.dll, in a worker process as for a person."""

import os
import signal

import numpy as np
import pytest

from conversions.events import Advanced, Notice
from sdsetup.errors import UsageError
from sdsetup.imaging.pipeline import Pipeline
from sdsetup.imaging.request import Request
from sdsetup.runtime.devices import choose_device, list_devices
from sdsetup.runtime.package import open_for_images
from sdsetup.runtime.runner import LocalRunner
from sdsetup.runtime.start import as_document, summary
from sdsetup.runtime.worker import make_runner
from tests.demo_package import demo_package
from tests.sdsetup import toy_package
from tests.sdsetup.imaging.test_pipeline import cpu, psnr

pytestmark = pytest.mark.directml
REQUEST = Request(prompt="a (red:1.3) horse", negative_prompt="blue", seed=3, steps=5)


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    # float16: some float32 shaders cannot be compiled where these tests run.
    return open_for_images(
        toy_package.write(
            tmp_path_factory.mktemp("packages") / "halved", precision="fp16", objects_above=100.0
        )
    )


@pytest.fixture(scope="module")
def expected(package):
    return Pipeline(package=package, runner=LocalRunner(package=package, device=cpu())).generate(REQUEST)


@pytest.fixture
def runner(package):
    made = make_runner(package, choose_device(list_devices()), low_memory=False)
    yield made
    made.close()


def test_the_adapter_is_chosen_by_itself_and_known_by_name():
    device = choose_device(list_devices())
    assert device.provider.name == "DmlExecutionProvider"
    assert device.number == 0
    assert device.memory_bytes
    word = device.name.split()[-1]
    assert choose_device(list_devices(), name=word).number == device.number
    assert choose_device(list_devices(), target="directml", number=0) == device


def test_an_adapter_that_is_not_there_is_refused_with_those_that_are():
    with pytest.raises(UsageError) as caught:
        choose_device(list_devices(), number=7)
    assert "DirectML 0" in caught.value.hint


def test_an_image_on_directml_is_the_cpu_s(package, runner, expected):
    made = Pipeline(package=package, runner=runner).generate(REQUEST)
    assert psnr(made.pixels, expected.pixels) > 35
    ran = as_document(runner)
    assert ran["provider"] == "DmlExecutionProvider"
    assert {name: used["node_share"] for name, used in ran["submodels"].items()} == dict.fromkeys(
        ("text_encoder", "unet", "vae_decoder", "safety_checker"), 1.0
    )
    assert "100.0% of the time" in summary(runner)


def test_a_lost_worker_costs_no_image_on_directml(package, runner, expected):
    notices = []

    def kill_at_step_two(event):
        if isinstance(event, Advanced) and event.done == 2:
            os.kill(runner.process_id, signal.SIGTERM)
        if isinstance(event, Notice):
            notices.append(event.text)

    runner.listener = kill_at_step_two
    made = Pipeline(package=package, runner=runner, listener=kill_at_step_two).generate(REQUEST)
    assert psnr(made.pixels, expected.pixels) > 35
    assert len(notices) == 1


def test_another_size_opens_other_sessions(package, runner):
    pipeline = Pipeline(package=package, runner=runner)
    small = pipeline.generate(Request(prompt="a horse", steps=2, scheduler="ddim", width=32, height=40))
    large = pipeline.generate(Request(prompt="a horse", steps=2, scheduler="ddim", width=48, height=32))
    assert small.pixels.shape == (1, 40, 32, 3)
    assert large.pixels.shape == (1, 32, 48, 3)
    assert len(runner.usage()["unet"].load_seconds) == 2
    assert np.isfinite(small.total_seconds)


def test_an_image_is_decoded_in_tiles(tmp_path_factory):
    decoder = demo_package(tmp_path_factory.mktemp("tiles") / "demo", precision="fp16", target="directml")
    latents = {"latent_sample": np.random.default_rng(0).standard_normal((1, 4, 16, 24)).astype(np.float32)}
    images, device = [], choose_device(list_devices())
    for tiles in ({}, {"vae_decoder": 64}):
        made = make_runner(decoder, device, low_memory=True, tiles=tiles)
        try:
            images.append(made.run("vae_decoder", latents)["sample"])
            assert made.usage()["vae_decoder"].placement.node_share == 1
        finally:
            made.close()
    whole, tiled = images
    assert 10 * np.log10(4 / np.mean((whole.astype(np.float64) - tiled) ** 2)) >= 50

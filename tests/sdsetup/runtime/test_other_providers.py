"""Providers that an environment of their own brings: images and verification on OpenVINO and on WebGPU.

Each needs an environment with ``pip install -e ".[openvino]"`` or ``".[webgpu]"`` and what tests need.
Without a GPU, WebGPU also needs a software Vulkan driver and ORT_WEBGPU_EP_ALLOW_SOFTWARE_ADAPTER=1.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from conversions.errors import ConversionError
from conversions.package.layout import Package
from conversions.providers.devices import CPU, Device, list_devices
from conversions.providers.onnx_session import run
from sdsetup.imaging.pipeline import Pipeline
from sdsetup.imaging.request import Request
from sdsetup.runtime.package import open_for_images
from sdsetup.runtime.runner import LocalRunner
from sdsetup.runtime.start import as_document, summary
from tests.sdsetup import toy_package
from tests.sdsetup.imaging.test_pipeline import psnr

REQUEST = Request(prompt="a (red:1.3) horse", negative_prompt="blue", seed=3, steps=5)


@pytest.fixture(params=["openvino", "webgpu"])
def device(request: pytest.FixtureRequest) -> Device:
    for each in list_devices():
        if each.provider.target == request.param:
            return each
    pytest.skip(f"ONNX Runtime lists no {request.param} device here")


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    return open_for_images(toy_package.write(tmp_path_factory.mktemp("packages") / "plain"))


def test_an_image_is_the_cpu_s_image_and_every_node_ran_there(
    package: Package, device: Device, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    expected = Pipeline(package=package, runner=LocalRunner(package=package, device=CPU)).generate(REQUEST)
    runner = LocalRunner(package=package, device=device)
    images = Pipeline(package=package, runner=runner).generate(REQUEST)

    assert psnr(images.pixels, expected.pixels) > 45
    assert f"{device} ran 100.0% of" in summary(runner)
    assert as_document(runner)["time_share"] == 1.0
    assert "without replaying" not in caplog.text


def test_verification_runs_there_too(package: Package, device: Device) -> None:
    graph = package.graph("unet")
    inputs = {
        "sample": np.random.default_rng(0).standard_normal((2, 4, 8, 16)).astype(np.float32),
        "timestep": np.ones(1, np.float32),
        "encoder_hidden_states": np.ones((2, 77, 8), np.float32),
    }
    sizes = {"batch": 2, "height": 8, "width": 16, "sequence": 77}
    expected, found = run(graph, inputs, CPU, sizes), run(graph, inputs, device, sizes)

    np.testing.assert_allclose(found.outputs["out_sample"], expected.outputs["out_sample"], atol=1e-4)
    assert found.placement.elsewhere == {}
    assert found.placement.seconds.keys() == {device.provider.name}


def test_hardware_that_is_not_there_is_an_error_and_no_run_on_the_cpu(
    package: Package, device: Device, capsys: pytest.CaptureFixture[str]
) -> None:
    if device.listed is not None:
        pytest.skip("ONNX Runtime's list chooses it, not an option")
    gone = replace(device, option="GPU.7")
    with pytest.raises(ConversionError, match="did not take unet"):
        run(package.graph("unet"), {}, gone, {"batch": 2, "height": 8, "width": 16, "sequence": 77})
    assert "Falling back" not in capsys.readouterr().out


def test_a_broken_graph_is_one_clear_message(package: Package, device: Device, tmp_path: Path) -> None:
    torn = tmp_path / "unet" / "model.onnx"
    torn.parent.mkdir()
    torn.write_bytes(package.graph("unet").read_bytes()[:200])
    with pytest.raises(ConversionError, match="cannot run"):
        run(torn, {}, device, {})

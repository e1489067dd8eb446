"""Inputs and outputs that stay in a device's memory, here the processor's."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from conversions.providers.devices import Device
from conversions.providers.table import FIXED_SIZES, provider_for
from sdsetup.runtime import sessions
from sdsetup.runtime.device_binding import DeviceBinding
from sdsetup.runtime.package import open_for_images
from sdsetup.runtime.runner import LocalRunner
from tests.sdsetup import toy_package

CPU = Device(provider=provider_for("cpu"), name="CPU")
BOUND = Device(provider=replace(provider_for("cpu"), sizes=FIXED_SIZES, bound_memory="cpu"), name="CPU")
INPUTS = {
    "sample": np.full((2, 4, 8, 16), 0.5, np.float32),
    "timestep": np.array([7], np.float32),
    "encoder_hidden_states": np.full((2, 77, 8), 0.25, np.float32),
}
OTHERS = {name: value * -1.5 for name, value in INPUTS.items()}


@pytest.fixture(params=["fp32", "fp16"])
def folder(tmp_path, request):
    return toy_package.write(tmp_path / "x", precision=request.param)


def test_each_run_reads_its_own_inputs_and_leaves_earlier_outputs_alone(folder):
    graph = folder / "unet" / "model.onnx"
    loaded, plain = sessions.load(graph, BOUND, {}), sessions.load(graph, CPU, {})
    given = [INPUTS, OTHERS, INPUTS]
    bound = [sessions.run(loaded, inputs, "running unet")[0]["out_sample"] for inputs in given]
    for inputs, outputs in zip(given, bound, strict=True):
        wanted = sessions.run(plain, inputs, "running unet")[0]["out_sample"]
        np.testing.assert_array_equal(outputs, wanted)
    assert not np.array_equal(bound[0], bound[1])
    assert loaded.binding is not None
    assert loaded.binding.runs == 3
    np.testing.assert_array_equal(INPUTS["sample"], np.full((2, 4, 8, 16), 0.5))


def test_another_size_gets_places_of_its_own(folder):
    runner = LocalRunner(package=open_for_images(folder), device=BOUND)
    wider = {**INPUTS, "sample": np.ones((2, 4, 8, 24), np.float32)}
    for inputs in (INPUTS, wider, wider, INPUTS):
        assert runner.run("unet", inputs)["out_sample"].shape == inputs["sample"].shape


def test_a_run_that_cannot_be_recorded_is_repeated_without_recording(folder):
    """Fewer numbers than the first run had are what ONNX Runtime refuses here, in the second run."""
    runner = LocalRunner(
        package=open_for_images(folder),
        device=replace(BOUND, provider=replace(BOUND.provider, sizes="free")),
    )
    runner.run("unet", INPUTS)
    wider = {**INPUTS, "sample": np.ones((2, 4, 8, 24), np.float32)}
    plain = LocalRunner(package=open_for_images(folder), device=CPU)
    for inputs in (wider, INPUTS):
        np.testing.assert_array_equal(
            runner.run("unet", inputs)["out_sample"], plain.run("unet", inputs)["out_sample"]
        )
    assert len(runner.usage()["unet"].load_seconds) == 2


FULL = """
import resource, sys
from pathlib import Path
import numpy as np
import psutil
from sdsetup.runtime import sessions
from sdsetup.runtime.package import open_for_images
from sdsetup.runtime.runner import LocalRunner
from sdsetup.runtime.sessions import OutOfMemoryError
from tests.sdsetup.runtime.test_device_binding import BOUND, INPUTS

package = open_for_images(Path(sys.argv[1]))
runner = LocalRunner(package=package, device=BOUND)
large = {**INPUTS, "sample": np.zeros((2, 4, 4096, 2048), np.float32)}
runner.open_ahead("unet", sessions.sizes_of(sessions.dimensions_of(package.graph("unet")), large))
unlimited = resource.getrlimit(resource.RLIMIT_AS)
resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + 2**27, unlimited[1]))
try:
    runner.run("unet", large)
except OutOfMemoryError as error:
    print(error.message)
resource.setrlimit(resource.RLIMIT_AS, unlimited)
del large
runner.run("unet", INPUTS)
print(runner._open["unet"].binding)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits a process's memory as Linux does")
def test_inputs_that_find_no_memory_do_not_end_recording(tmp_path):
    folder = toy_package.write(tmp_path / "x", precision="fp32")
    said = subprocess.run(
        [sys.executable, "-c", FULL, str(folder)], check=True, capture_output=True, text=True, timeout=120
    )
    assert said.stdout.splitlines() == [
        "the device ran out of memory while running unet.",
        "DeviceBinding(memory='cpu', number=0, runs=1)",
    ]


class Noting:
    """A session that notes which recorded graph its runs are told to belong to."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self.told: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def run_with_iobinding(self, binding: Any, options: Any = None) -> None:
        self.told.append("" if options is None else options.get_run_config_entry("gpu_graph_id"))
        self._session.run_with_iobinding(binding, options)


def test_the_first_run_alone_is_kept_out_of_the_recording(tmp_path):
    graph = toy_package.write(tmp_path / "x", precision="fp32") / "unet" / "model.onnx"
    session = Noting(sessions.load(graph, CPU, {}).session)
    binding = DeviceBinding(session=session, memory="cpu", number=0)
    for _ in range(3):
        binding.run(INPUTS)
    assert session.told == ["-1", "", ""]
    assert repr(binding) == "DeviceBinding(memory='cpu', number=0, runs=3)"

"""Images of Stable Diffusion XL through DirectML.dll, float16 and with weights of 4 bits, are the CPU's."""

from pathlib import Path

import pytest

from sdsetup.imaging.pipeline import Pipeline
from sdsetup.imaging.request import Request
from sdsetup.runtime.devices import choose_device, list_devices
from sdsetup.runtime.package import open_for_images
from sdsetup.runtime.runner import LocalRunner
from sdsetup.runtime.start import as_document
from sdsetup.runtime.worker import make_runner
from tests.sdsetup.imaging.test_pipeline import cpu, psnr

DATA = Path("/data")
LEAST_PSNR_DB = 40.0
REQUEST = Request(prompt="a (red:1.3) horse", negative_prompt="blue", seed=3, steps=4, width=64, height=72)

pytestmark = [
    pytest.mark.directml,
    pytest.mark.skipif(not (DATA / "xl-fp16").is_dir(), reason="python -m tests.windows directml makes them"),
]


@pytest.mark.parametrize("name", ["xl-fp16", "xl-int4"])
def test_an_image_of_xl_on_directml_is_the_cpu_s(name):
    package = open_for_images(DATA / name)
    expected = Pipeline(package=package, runner=LocalRunner(package=package, device=cpu())).generate(REQUEST)
    runner = make_runner(package, choose_device(list_devices()), low_memory=False)
    try:
        made = Pipeline(package=package, runner=runner).generate(REQUEST)
        ran = as_document(runner)
    finally:
        runner.close()
    psnr_db = psnr(made.pixels, expected.pixels)
    print(f"{name}: {psnr_db:.1f} dB")  # noqa: T201
    assert psnr_db >= LEAST_PSNR_DB
    assert ran["provider"] == "DmlExecutionProvider"
    assert {used["node_share"] for used in ran["submodels"].values()} == {1.0}

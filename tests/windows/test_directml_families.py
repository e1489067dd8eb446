"""Every family on the true DirectML.dll: submodels whole in one graph, numbers and images those of float32.

``python -m tests.windows families`` makes the packages, which takes minutes; ``directml`` makes those of
Stable Diffusion XL and of one family of transformers.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from conversions.package.layout import open_package
from conversions.verification.metrics import compare
from sdsetup.imaging.pipeline import Pipeline
from sdsetup.imaging.request import Request
from sdsetup.runtime.devices import choose_device, list_devices
from sdsetup.runtime.package import open_for_images
from sdsetup.runtime.runner import LocalRunner
from sdsetup.runtime.start import as_document
from sdsetup.runtime.worker import make_runner
from tests.sdsetup.imaging.test_pipeline import cpu, psnr
from tests.windows import on_directml
from tests.windows.family_shipment import SHOWN_AS
from tests.windows.test_first_image import sdsetup

DATA = Path("/data")
DEMO_INT4 = DATA / "demo-int4"
FAMILIES = sorted(path.parent for path in Path(SHOWN_AS).glob("*/package"))
IN_INT4 = [family for family in FAMILIES if (family / "package-int4").is_dir()]
LEAST_PSNR_DB = 40.0
REQUEST = Request(prompt="a (red:1.3) horse", negative_prompt="blue", seed=3, steps=4, width=64, height=72)
TYPES = {
    "tensor(float16)": np.float16,
    "tensor(float)": np.float32,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
}

pytestmark = pytest.mark.directml
needs_large = pytest.mark.skipif(
    not (DATA / "xl-fp16").is_dir(), reason="python -m tests.windows directml makes them"
)
needs_families = pytest.mark.skipif(not FAMILIES, reason="python -m tests.windows families makes them")


def _name(path: Path) -> str:
    return path.name if isinstance(path, Path) else str(path)


def reference_of(file: Path) -> dict[str, dict[str, np.ndarray]]:
    parts: dict[str, dict[str, np.ndarray]] = {"in": {}, "out": {}, "size": {}}
    with np.load(file) as arrays:
        for name in arrays.files:
            part, _, tensor = name.partition(".")
            parts[part][tensor] = arrays[name]
    return parts


@needs_families
@pytest.mark.parametrize(
    ("family", "submodel"),
    [(family, file.stem) for family in FAMILIES for file in sorted((family / "reference").glob("*.npz"))],
    ids=_name,
)
def test_a_submodel_in_float16_is_one_graph_on_directml_with_the_numbers_of_float32(
    family, submodel, tmp_path
):
    graph = open_package(family / "package").graph(submodel)
    reference = reference_of(family / "reference" / f"{submodel}.npz")
    sizes = {name: int(size) for name, size in reference["size"].items()}
    session = on_directml.open_session(graph, tmp_path, sizes)
    inputs = {each.name: reference["in"][each.name].astype(TYPES[each.type]) for each in session.get_inputs()}
    outputs, kernels = on_directml.run_and_name_kernels(session, inputs)
    assert outputs.keys() == reference["out"].keys()
    psnr_db = {name: compare(found, reference["out"][name]).psnr_db for name, found in outputs.items()}
    print(f"{family.name} {submodel}: {min(psnr_db.values()):.1f} dB, {kernels}")  # noqa: T201
    assert min(psnr_db.values()) >= LEAST_PSNR_DB
    assert [name.startswith("DmlFusedNode") for name in kernels] == [True]


@needs_families
@pytest.mark.parametrize("family", FAMILIES, ids=_name)
def test_images_of_every_task_on_directml_are_those_of_the_cpu(family):
    package = open_for_images(family / "package")
    runner = make_runner(package, choose_device(list_devices()), low_memory=False)
    exact = LocalRunner(package=package, device=cpu())
    try:
        for file in sorted((family / "images").glob("*.json")):
            request = Request(**json.loads(file.read_text(encoding="utf-8")))
            pixels = Pipeline(package=package, runner=runner).generate(request, check_safety=False).pixels
            on_cpu = Pipeline(package=package, runner=exact).generate(request, check_safety=False).pixels
            of_float32 = psnr(pixels, np.load(file.with_suffix(".npy")))
            of_float16 = psnr(pixels, on_cpu)
            print(  # noqa: T201
                f"{family.name} {file.stem}: {of_float32:.1f} dB of float32, {of_float16:.1f} dB of float16"
            )
            assert of_float32 >= LEAST_PSNR_DB
            assert of_float16 >= LEAST_PSNR_DB
        ran = as_document(runner)
    finally:
        runner.close()
    assert ran["provider"] == "DmlExecutionProvider"
    assert {used["node_share"] for used in ran["submodels"].values()} == {1.0}


@pytest.mark.skipif(not IN_INT4, reason="python -m tests.windows families makes them")
@pytest.mark.parametrize("family", IN_INT4, ids=_name)
def test_an_image_of_weights_of_4_bits_on_directml_is_that_of_the_cpu(family):
    package = open_for_images(family / "package-int4")
    assert any(package.quantized(name) for name in package.submodel_names)
    file = min((family / "images").glob("*.json"), key=lambda each: each.stem != "text-to-image")
    request = Request(**json.loads(file.read_text(encoding="utf-8")))
    runner = make_runner(package, choose_device(list_devices()), low_memory=False)
    try:
        pixels = Pipeline(package=package, runner=runner).generate(request, check_safety=False).pixels
        ran = as_document(runner)
    finally:
        runner.close()
    exact = LocalRunner(package=package, device=cpu())
    expected = Pipeline(package=package, runner=exact).generate(request, check_safety=False).pixels
    psnr_db = psnr(pixels, expected)
    print(f"{family.name} int4 {file.stem}: {psnr_db:.1f} dB")  # noqa: T201
    assert psnr_db >= LEAST_PSNR_DB
    assert {used["node_share"] for used in ran["submodels"].values()} == {1.0}


@pytest.mark.skipif(not DEMO_INT4.is_dir(), reason="python -m tests.windows families makes it")
def test_directml_draws_the_demo_right_with_weights_of_4_bits(tmp_path):
    said = sdsetup(tmp_path, "smoke-test", str(DEMO_INT4), "--provider", "directml", "--device-id", "0")
    assert said["passed"]
    assert {each["node_share"] for each in said["ran"]["submodels"].values()} == {1.0}


@needs_large
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

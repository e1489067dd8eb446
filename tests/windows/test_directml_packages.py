"""Packages that ``sdsetup convert`` made on Linux run wholly on DirectML, with the numbers of Linux's CPU."""

from pathlib import Path

import numpy as np
import pytest

from conversions.verification.metrics import compare
from tests.windows import on_directml

DATA = Path("/data")
SUBMODELS = ("text_encoder", "unet", "vae_encoder", "vae_decoder", "safety_checker")
LEAST_PSNR_DB = 40.0

pytestmark = [
    pytest.mark.directml,
    pytest.mark.skipif(not (DATA / "package").is_dir(), reason="python -m tests.windows directml makes them"),
]


def _reference(submodel: str) -> dict[str, dict[str, np.ndarray]]:
    parts: dict[str, dict[str, np.ndarray]] = {"in": {}, "out": {}, "size": {}}
    with np.load(DATA / "reference" / f"{submodel}.npz") as arrays:
        for name in arrays.files:
            part, _, tensor = name.partition(".")
            parts[part][tensor] = arrays[name]
    return parts


@pytest.mark.parametrize("submodel", SUBMODELS)
def test_a_submodel_runs_wholly_on_directml_with_the_numbers_of_linux(submodel, tmp_path, record_property):
    reference = _reference(submodel)
    sizes = {name: int(size) for name, size in reference["size"].items()}
    session = on_directml.open_session(DATA / "package" / submodel / "model.onnx", tmp_path, sizes)
    types = {"tensor(float16)": np.float16, "tensor(float)": np.float32, "tensor(int32)": np.int32}
    inputs = {
        wanted.name: reference["in"][wanted.name].astype(types[wanted.type])
        for wanted in session.get_inputs()
    }
    outputs = on_directml.run(session, inputs)
    assert outputs.keys() == reference["out"].keys()
    for name, found in outputs.items():
        psnr_db = compare(found, reference["out"][name]).psnr_db
        print(f"{submodel}.{name}: {psnr_db:.1f} dB")  # noqa: T201
        assert psnr_db >= LEAST_PSNR_DB

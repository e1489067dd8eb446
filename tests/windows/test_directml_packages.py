"""Packages that ``sdsetup convert`` made on Linux run wholly on DirectML, with the numbers of Linux's CPU."""

from pathlib import Path

import numpy as np
import onnx_ir as ir
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


def _outputs(submodel: str, graph: Path, folder: Path) -> dict[str, float]:
    """Run a submodel on DirectML; the PSNR of each output against Linux's, in dB."""
    reference = _reference(submodel)
    sizes = {name: int(size) for name, size in reference["size"].items()}
    session = on_directml.open_session(graph, folder, sizes)
    types = {"tensor(float16)": np.float16, "tensor(float)": np.float32, "tensor(int32)": np.int32}
    inputs = {
        wanted.name: reference["in"][wanted.name].astype(types[wanted.type])
        for wanted in session.get_inputs()
    }
    outputs = on_directml.run(session, inputs)
    assert outputs.keys() == reference["out"].keys()
    return {name: compare(found, reference["out"][name]).psnr_db for name, found in outputs.items()}


@pytest.mark.parametrize("submodel", SUBMODELS)
def test_a_submodel_runs_wholly_on_directml_with_the_numbers_of_linux(submodel, tmp_path):
    outputs = _outputs(submodel, DATA / "package" / submodel / "model.onnx", tmp_path)
    for name, psnr_db in outputs.items():
        print(f"{submodel}.{name}: {psnr_db:.1f} dB")  # noqa: T201
        assert psnr_db >= LEAST_PSNR_DB


def test_the_unet_loses_more_than_10_db_where_its_group_norms_are_not_kept_in_float32(tmp_path):
    """Its weights are such that they have to be kept; see ``shipment``."""
    source = DATA / "package" / "unet"
    model = ir.load(source / "model.onnx")
    norms = [node for node in model.graph if node.op_type == "GroupNorm"]
    for node in norms:
        cast = node.inputs[0].producer()
        assert cast.op_type == "Cast"
        node.replace_input_with(0, cast.inputs[0])
        node.outputs[0].dtype = ir.DataType.FLOAT16
    ir.save(model, tmp_path / "model.onnx", external_data="weights")

    kept = _outputs("unet", source / "model.onnx", tmp_path)["out_sample"]
    plain = _outputs("unet", tmp_path / "model.onnx", tmp_path)["out_sample"]

    print(f"unet with {len(norms)} group norms in float16: {plain:.1f} dB, kept: {kept:.1f} dB")  # noqa: T201
    assert plain < kept - 10

"""The float32 twin of a float16 package: the same files, and float32's numbers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

from conversions.checkpoint.folder import open_folder
from conversions.package.layout import open_package
from conversions.passes.upcast_to_fp32 import upcast_to_fp32
from conversions.providers.session_graph import SessionGraph, session_graph
from conversions.providers.table import provider_for
from conversions.verification.reference import make_inputs
from tests.conversions.graphs_for_tests import psnr

CPU = "CPUExecutionProvider"


def run(form: SessionGraph, inputs: dict[str, np.ndarray[Any, Any]]) -> tuple[set[str], np.ndarray[Any, Any]]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    for key, value in form.config.items():
        options.add_session_config_entry(key, value)
    session = onnxruntime.InferenceSession(form.model, options, providers=[CPU])
    types = {"tensor(float16)": np.float16, "tensor(float)": np.float32}
    feeds = {
        each.name: inputs[each.name].astype(types.get(each.type, inputs[each.name].dtype))
        for each in session.get_inputs()
    }
    return {each.type for each in session.get_inputs()}, session.run(None, feeds)[0]


def test_a_weight_is_widened_right_before_it_is_first_read() -> None:
    model = ir.from_onnx_text("""
        <ir_version: 10, opset_import: ["" : 18]>
        g (float16[2, 2] x) => (float16[2, 2] y)
        <float16[2, 2] v = {1, 2, 3, 4}, float16[2, 2] w = {1, 2, 3, 4}> {
            a = Add (x, v) b = MatMul (a, w) c = Relu (b) y = MatMul (c, v)
        }""")
    upcast_to_fp32(model)
    nodes = [(node.op_type, str(node.inputs[-1].name)) for node in model.graph if node.inputs[-1]]
    assert nodes == [
        ("Cast", "v"),
        ("Add", "v_upcast"),
        ("Cast", "w"),
        ("MatMul", "w_upcast"),
        ("Relu", "b"),
        ("MatMul", "v_upcast"),
    ]


@pytest.mark.torch
@pytest.mark.parametrize("target", ["cpu", "directml"])
def test_every_submodel_has_one(
    target: str, tiny_checkpoint: Path, make_package: Callable[..., Path], tmp_path: Path
) -> None:
    half, whole = (
        open_package(make_package(tiny_checkpoint, tmp_path / precision, target=target, precision=precision))
        for precision in ("fp16", "fp32")
    )
    checkpoint = open_folder(tiny_checkpoint)
    for submodel in checkpoint.submodels:
        inputs = make_inputs(submodel.kind, checkpoint.config_of(submodel), submodel.kind.sizes)
        form = session_graph(half.graph(submodel.name), provider_for(CPU), (upcast_to_fp32,))
        types, twin = run(form, inputs)
        _, expected = run(session_graph(whole.graph(submodel.name), provider_for(CPU)), inputs)

        assert "tensor(float16)" not in types
        assert twin.dtype == np.float32
        assert psnr(expected, twin) > 60

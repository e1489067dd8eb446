"""Faults that people meet with DirectML, planted, and that they are caught. They are silent by nature."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from conversions.passes.drop_allowzero import drop_allowzero
from tests.windows import on_directml
from tests.windows.on_directml import DIRECTML, NotOnDirectMLError

pytestmark = pytest.mark.directml

SHAPE = (1, 4, 8, 8)


def _convolution(opset: int) -> bytes:
    weights = np.random.default_rng(0).standard_normal((4, 4, 3, 3)).astype(np.float16)
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["sample", "weight"], ["convolved"], pads=[1, 1, 1, 1]),
            helper.make_node("Sigmoid", ["convolved"], ["out_sample"]),
        ],
        "convolution",
        [helper.make_tensor_value_info("sample", TensorProto.FLOAT16, SHAPE)],
        [helper.make_tensor_value_info("out_sample", TensorProto.FLOAT16, SHAPE)],
        [numpy_helper.from_array(weights, "weight")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    return model.SerializeToString()


@pytest.fixture
def sample() -> np.ndarray:
    return np.random.default_rng(1).standard_normal(SHAPE).astype(np.float16)


def _cpu_session(model: bytes):
    import onnxruntime

    return onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])


def test_a_convolution_of_opset_18_runs_on_directml_with_the_right_numbers(tmp_path, sample):
    model = _convolution(18)
    session = on_directml.open_session(model, tmp_path)
    (got,) = on_directml.run(session, {"sample": sample}).values()
    (wanted,) = _cpu_session(model).run(None, {"sample": sample})
    assert got.dtype == np.float16
    np.testing.assert_allclose(got.astype(np.float32), wanted.astype(np.float32), atol=2e-3)


def test_a_convolution_of_opset_22_has_no_kernel_and_is_caught(tmp_path):
    with pytest.raises(NotOnDirectMLError, match="assigned to the default CPU"):
        on_directml.open_session(_convolution(22), tmp_path)


def test_onnxruntimes_own_record_of_assignments_hides_that_convolution():
    """Why the judge does not use it. Should a later ONNX Runtime list the node, this test says so."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    session = onnxruntime.InferenceSession(
        _convolution(22), options, providers=[(DIRECTML, {"device_id": "0"})]
    )
    listed = [
        (group.ep_name, node.op_type)
        for group in session.get_provider_graph_assignment_info()
        for node in group.get_nodes()
    ]
    assert listed == [(DIRECTML, "Sigmoid")]


def _flattening() -> bytes:
    graph = helper.make_graph(
        [helper.make_node("Reshape", ["sample", "shape"], ["out_sample"], name="flatten", allowzero=1)],
        "flattening",
        [helper.make_tensor_value_info("sample", TensorProto.FLOAT16, SHAPE)],
        [helper.make_tensor_value_info("out_sample", TensorProto.FLOAT16, (4, 64))],
        [numpy_helper.from_array(np.array([4, -1]), "shape")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return model.SerializeToString()


def test_a_reshape_with_allowzero_and_a_minus_one_has_no_session(tmp_path):
    """Should a later DirectML.dll take it, this test says so."""
    with pytest.raises(Exception, match="80070057"):
        on_directml.open_session(_flattening(), tmp_path)


def test_without_its_needless_allowzero_that_reshape_is_right(tmp_path, sample):
    model = ir.from_proto(onnx.load_from_string(_flattening()))
    assert drop_allowzero(model) == 1
    session = on_directml.open_session(ir.to_proto(model).SerializeToString(), tmp_path)
    (got,) = on_directml.run(session, {"sample": sample}).values()
    np.testing.assert_array_equal(got, sample.reshape(4, 64))


def test_an_adapter_that_does_not_exist_is_replaced_by_the_cpu_silently_and_that_is_caught():
    import onnxruntime

    session = onnxruntime.InferenceSession(_convolution(18), providers=[(DIRECTML, {"device_id": "7"})])
    with pytest.raises(NotOnDirectMLError, match="CPUExecutionProvider"):
        on_directml.check_provider(session)


def test_kernels_on_the_cpu_are_caught_after_the_run_too(tmp_path, sample):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.enable_profiling = True
    options.profile_file_prefix = str(tmp_path / "profile")
    session = onnxruntime.InferenceSession(
        _convolution(22), options, providers=[(DIRECTML, {"device_id": "0"})]
    )
    with pytest.raises(NotOnDirectMLError, match="Conv"):
        on_directml.run(session, {"sample": sample})


def test_the_flavour_of_onnxruntime_without_directml_is_caught(tmp_path):
    """The real CPU wheel for Windows, found first, as after ``pip install onnxruntime``."""
    code = (
        "from pathlib import Path; from tests.windows import on_directml\n"
        "on_directml.open_session(Path('model.onnx'), Path('.'))"
    )
    (tmp_path / "model.onnx").write_bytes(_convolution(18))
    search = os.pathsep.join(["Z:\\opt\\onnxruntime-cpu", str(Path.cwd())])
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": search},
        capture_output=True,
        text=True,
        errors="replace",
        timeout=120,
        check=False,
    )
    assert result.returncode == 1
    assert "NotOnDirectMLError: this ONNX Runtime has only" in result.stderr

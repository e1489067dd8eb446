from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import parser

from conversions.providers.table import FIXED_SIZES, provider_for
from conversions.verification.ep_assignment import Placement, describe_shares, share_of_time
from sdsetup.errors import SetupError
from sdsetup.runtime import sessions
from sdsetup.runtime.devices import Device
from sdsetup.runtime.package import open_for_images
from sdsetup.runtime.runner import LocalRunner
from tests.sdsetup import toy_package

CPU = Device(provider=provider_for("cpu"), name="CPU")
# As on other devices, a first run is measured, and inputs and outputs are bound.
MEASURED = Device(provider=replace(provider_for("cpu"), target="measured"), name="CPU")
BOUND = Device(provider=replace(provider_for("cpu"), bound_memory="cpu"), name="CPU")
INPUTS = {
    "sample": np.ones((2, 4, 8, 16), np.float32),
    "timestep": np.ones(1, np.float32),
    "encoder_hidden_states": np.ones((2, 77, 8), np.float32),
}


@pytest.fixture(scope="module")
def unet(tmp_path_factory):
    return (
        toy_package.write(tmp_path_factory.mktemp("packages") / "x", precision="fp16") / "unet" / "model.onnx"
    )


def test_sizes_of_named_dimensions_are_read_from_the_inputs(unet):
    sizes = sessions.sizes_of(sessions.dimensions_of(unet), INPUTS)
    assert sizes == {"batch": 2, "height": 8, "width": 16, "sequence": 77}


def test_a_runner_reads_a_graph_s_dimensions_once_and_opens_a_session_for_each_size(tmp_path):
    """The provider is the CPU's with fixed sizes; the graph's file is gone before the second run."""
    folder = toy_package.write(tmp_path / "x", precision="fp32")
    fixed = Device(provider=replace(provider_for("cpu"), sizes=FIXED_SIZES), name="CPU")
    runner = LocalRunner(package=open_for_images(folder), device=fixed)
    runner.run("unet", INPUTS)
    assert len(runner.usage()["unet"].load_seconds) == 1

    wider = {**INPUTS, "sample": np.ones((2, 4, 8, 24), np.float32)}
    assert runner.run("unet", wider)["out_sample"].shape == (2, 4, 8, 24)
    assert len(runner.usage()["unet"].load_seconds) == 2

    (folder / "unet" / "model.onnx").unlink()
    assert runner.run("unet", wider)["out_sample"].shape == (2, 4, 8, 24)
    assert len(runner.usage()["unet"].load_seconds) == 2


def test_a_torn_graph_is_one_clear_message_where_sizes_are_fixed(tmp_path):
    folder = toy_package.write(tmp_path / "x")
    graph = folder / "unet" / "model.onnx"
    graph.write_bytes(graph.read_bytes()[:100])
    with pytest.raises(SetupError, match="failed while opening unet"):
        sessions.dimensions_of(graph)


def test_float32_goes_into_a_float16_graph_and_comes_out_of_it(unet):
    loaded = sessions.load(unet, CPU, {})
    outputs, _ = sessions.run(loaded, INPUTS, "running unet")
    assert outputs["out_sample"].dtype == np.float32
    assert outputs["out_sample"].shape == (2, 4, 8, 16)
    assert loaded.placement.node_share == 1.0
    assert loaded.placement.time_share == 1.0


def test_torn_weights_are_one_clear_message(tmp_path):
    folder = toy_package.write(tmp_path / "x")
    data = folder / "unet" / "model.onnx_data"
    data.write_bytes(data.read_bytes()[:100])
    with pytest.raises(SetupError, match="failed while opening unet"):
        sessions.load(folder / "unet" / "model.onnx", CPU, {})


def test_a_torn_graph_is_one_clear_message(tmp_path):
    folder = toy_package.write(tmp_path / "x")
    graph = folder / "unet" / "model.onnx"
    graph.write_bytes(graph.read_bytes()[:100])
    with pytest.raises(SetupError, match="failed while opening unet"):
        sessions.load(graph, CPU, {})


def test_a_provider_that_is_not_here_is_an_error_and_no_fallback(unet):
    absent = Device(provider=provider_for("cuda"), name="GPU")
    with (
        pytest.warns(UserWarning),
        pytest.raises(SetupError, match="fell back to CPUExecutionProvider") as caught,
    ):
        sessions.load(unet, absent, {})
    assert caught.value.code == "device.refused"


@pytest.mark.parametrize("code", ["887A0005", "887a0006", "887A0007", "887A0020"])
def test_a_lost_device_is_known_by_its_code(code):
    error = RuntimeError(f"DmlExecutionProvider: {code} The GPU device instance has been suspended.")
    assert isinstance(sessions.explained(error, "running unet"), sessions.DeviceLostError)


@pytest.mark.parametrize(
    "text",
    [
        "8007000E Not enough memory resources",
        "std::bad_alloc",
        "CUDNN failure 4: CUDNN_STATUS_ALLOC_FAILED ; GPU=0",
        "BFCArena::AllocateRawInternal Available memory of 0 is smaller than requested bytes of 262144",
    ],
)
def test_a_full_device_is_told_with_what_helps(text):
    error = sessions.explained(RuntimeError(text), "running unet")
    assert isinstance(error, sessions.OutOfMemoryError)
    assert error.code == "device.memory"
    assert "--low-vram" in error.hint


def test_other_failures_have_codes_of_their_own():
    for text, code in (
        ("it requires f16\nand more", "device.float16"),
        (" strange\nand more", "runtime.failed"),
    ):
        error = sessions.explained(RuntimeError(text), "running unet")
        assert isinstance(error, SetupError)
        assert error.code == code
        assert "running unet" in error.message
        assert "and more" not in error.message


def test_shares_are_of_nodes_and_of_time():
    mixed = Placement(provider="Dml", nodes={"Dml": 30, "CPU": 10}, seconds={"Dml": 9.0, "CPU": 1.0})
    assert (mixed.node_share, mixed.time_share) == (0.75, 0.9)
    unmeasured = Placement(provider="Dml", nodes={"Dml": 1, "CPU": 1})
    assert unmeasured.time_share is None
    assert share_of_time([(mixed, 1.0), (unmeasured, 1.0)]) is None
    whole = Placement(provider="Dml", nodes={"Dml": 960})
    assert share_of_time([(mixed, 1.0), (whole, 3.0)]) == pytest.approx(0.975)
    assert describe_shares([mixed, whole], 0.975) == "99.0% of 1,000 nodes, 97.5% of the time"
    assert describe_shares([mixed], None) == "75.0% of 40 nodes"


def test_a_profile_shows_nodes_that_fell_to_the_cpu_unrecorded(unet, tmp_path):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.enable_profiling = True
    options.profile_file_prefix = str(tmp_path / "profile")
    session = onnxruntime.InferenceSession(unet, options, providers=["CPUExecutionProvider"])
    halved = {n: a.astype(np.float16) if n != "timestep" else a for n, a in INPUTS.items()}
    session.run(None, halved)
    recorded = Placement(provider="Dml", nodes={"Dml": 5})
    measured = recorded.measured(Path(session.end_profiling()))
    assert set(measured.seconds) == {"CPUExecutionProvider"}
    assert measured.seconds["CPUExecutionProvider"] > 0
    assert measured.nodes["Dml"] == 5
    assert measured.nodes["CPUExecutionProvider"] >= 9
    assert measured.node_share < 0.5
    assert measured.elsewhere["Conv"] == 1


def test_group_norm_runs_on_a_provider_without_its_kernel(tmp_path):
    model = parser.parse_model(
        """<ir_version: 10, opset_import: ["" : 18, "com.microsoft" : 1]>
        norm (float[batch, 4, height, width] x) => (float[batch, 4, height, width] y) {
            y = com.microsoft.GroupNorm<groups = 2, activation = 1, channels_last = 0>(x, g, b)
        }"""
    )
    gain, bias = np.float32([1, 2, 3, 4] * 16)[:4], np.float32([0.5, 0, 0, 1])
    model.graph.initializer.extend(
        [onnx.numpy_helper.from_array(gain, "g"), onnx.numpy_helper.from_array(bias, "b")]
    )
    path = tmp_path / "norm" / "model.onnx"
    path.parent.mkdir()
    onnx.save(model, path, save_as_external_data=True, location="model.onnx_data", size_threshold=0)
    x = np.random.default_rng(0).standard_normal((2, 4, 3, 5)).astype(np.float32)
    outputs, _ = sessions.run(sessions.load(path, CPU, {}), {"x": x}, "running norm")
    grouped = x.reshape(2, 2, -1)
    centred = (grouped - grouped.mean(-1, keepdims=True)) / np.sqrt(grouped.var(-1, keepdims=True) + 1e-5)
    plain = centred.reshape(x.shape) * gain[:, None, None] + bias[:, None, None]
    np.testing.assert_allclose(outputs["y"], plain / (1 + np.exp(-plain)), atol=1e-5)


def test_the_first_run_is_measured_and_no_other(unet):
    loaded = sessions.load(unet, MEASURED, {})
    assert loaded.profiling
    assert loaded.placement.seconds == {}
    outputs, measured = sessions.run(loaded, INPUTS, "running unet")
    assert not measured.profiling
    assert measured.placement.seconds["CPUExecutionProvider"] > 0
    again, after = sessions.run(measured, INPUTS, "running unet")
    assert after is measured
    np.testing.assert_array_equal(again["out_sample"], outputs["out_sample"])
    plain = sessions.load(unet, CPU, {})
    assert not plain.profiling
    assert sessions.run(plain, INPUTS, "running unet")[1] is plain


def test_inputs_and_outputs_are_bound_where_launches_are_recorded(unet):
    assert sessions.load(unet, BOUND, {}).binding is not None
    assert sessions.load(unet, BOUND, {}, replayed=False).binding is None
    assert sessions.load(unet, CPU, {}).binding is None


def test_a_device_whose_memory_cannot_be_had_by_name_runs_without_it(tmp_path):
    device = replace(BOUND, provider=replace(BOUND.provider, bound_memory="nowhere"))
    package = open_for_images(toy_package.write(tmp_path / "x", precision="fp16"))
    loaded = sessions.load(package.graph("unet"), device, {})
    with pytest.raises(sessions.ReplayError, match="nowhere"):
        sessions.run(loaded, INPUTS, "running unet")
    runner = LocalRunner(package=package, device=device)
    expected = LocalRunner(package=package, device=CPU).run("unet", INPUTS)
    np.testing.assert_array_equal(runner.run("unet", INPUTS)["out_sample"], expected["out_sample"])
    assert len(runner.usage()["unet"].load_seconds) == 2


def test_only_the_recorded_run_may_be_repeated_without_recording(unet, tmp_path):
    """Other numbers than a graph takes fail in the second run, which is recorded, as in any other."""
    wrong = {**INPUTS, "sample": np.ones((2, 5, 8, 16), np.float32)}
    loaded = sessions.load(unet, BOUND, {})
    with pytest.raises(SetupError, match="failed while running unet"):
        sessions.run(loaded, wrong, "running unet")
    loaded = sessions.load(unet, BOUND, {})
    sessions.run(loaded, INPUTS, "running unet")
    with pytest.raises(sessions.ReplayError, match="does not match the size"):
        sessions.run(loaded, wrong, "running unet")
    torn = tmp_path / "unet" / "model.onnx"
    torn.parent.mkdir()
    torn.write_bytes(unet.read_bytes()[:100])
    with pytest.raises(SetupError, match="failed while opening unet"):
        sessions.load(torn, BOUND, {})


def test_dimensions_are_read_without_the_weights(unet, tmp_path):
    alone = tmp_path / "unet" / "model.onnx"
    alone.parent.mkdir()
    alone.write_bytes(unet.read_bytes())
    assert sessions.dimensions_of(alone) == {
        "sample": ("batch", "", "height", "width"),
        "timestep": ("",),
        "encoder_hidden_states": ("batch", "sequence", ""),
    }

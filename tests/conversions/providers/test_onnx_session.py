"""Sessions as verification opens them; the one that falls back is ONNX Runtime's own Azure provider."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import numpy_helper, parser

from conversions.errors import ConversionError
from conversions.events import ignore
from conversions.package.layout import open_package
from conversions.passes.winograd_convolution import transformed_kernel, winograd_convolution
from conversions.providers import device_answers, onnx_session, winograd_check
from conversions.providers.devices import CPU, Device
from conversions.providers.session_graph import session_graph
from conversions.providers.table import FIXED_SIZES, Provider, Winograd, provider_for
from conversions.verification.ep_assignment import Placement, read_placement
from conversions.verification.parity import verify

# It ships with the CPU's wheels, opens sessions, and has kernels for none of our operators.
AZURE = Device(
    provider=Provider(
        target="azure",
        name="AzureExecutionProvider",
        label="Azure",
        package="onnxruntime",
        sizes=FIXED_SIZES,
        at_load=("expand_group_norm",),
    ),
    name="Elsewhere",
    number=3,
)
X = np.random.default_rng(0).standard_normal((2, 3)).astype(np.float32)


needs_azure = pytest.mark.skipif(
    AZURE.provider.name not in onnxruntime.get_available_providers(),
    reason="this wheel has no Azure provider",
)


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    model = parser.parse_model(
        """<ir_version: 10, opset_import: ["" : 18]>
        g (float[batch, 3] x) => (float[batch, 2] y) { m = MatMul(x, w) y = Tanh(m) }"""
    )
    model.graph.initializer.append(numpy_helper.from_array(np.eye(3, 2, dtype=np.float32), "w"))
    path = tmp_path / "unet" / "model.onnx"
    path.parent.mkdir()
    onnx.save(model, path, save_as_external_data=True, location="model.onnx_data", size_threshold=0)
    return path


@needs_azure
def test_nodes_that_went_to_the_cpu_are_counted_named_and_timed(graph: Path) -> None:
    outcome = onnx_session.run(graph, {"x": X}, AZURE, {"batch": 2})

    np.testing.assert_allclose(outcome.outputs["y"], np.tanh(X[:, :2]), rtol=1e-6)
    assert outcome.placement.nodes == {"CPUExecutionProvider": 2}
    assert outcome.placement.elsewhere == {"MatMul": 1, "Tanh": 1}
    assert outcome.placement.node_share == 0.0
    assert outcome.placement.time_share == 0.0


def test_the_cpu_is_where_it_was_asked_for_and_leaves_no_profile(graph: Path, tmp_path: Path) -> None:
    outcome = onnx_session.run(graph, {"x": X}, CPU, {})

    assert outcome.placement.elsewhere == {}
    assert outcome.placement.time_share == 1.0
    assert not list(Path.cwd().glob("*profile*.json"))


def test_sessions_that_are_opened_in_one_second_have_profiles_of_their_own(graph: Path) -> None:
    """Those of two programs, too: ONNX Runtime names a profile by the second."""
    profiled = replace(CPU, provider=replace(CPU.provider, target="other"))
    sessions = [onnx_session.open_session(graph, profiled, {}) for _ in range(3)]
    for session in sessions:
        session.run(None, {"x": X})
    profiles = {Path(session.end_profiling()) for session in sessions}
    assert len(profiles) == 3
    assert all(each.parent == Path(tempfile.gettempdir()) for each in profiles)
    for each in profiles:
        each.unlink()


def test_a_device_that_refuses_the_session_is_an_error_with_its_name(graph: Path) -> None:
    card = Device(provider=provider_for("cuda"), name="GeForce", number=1)
    with pytest.warns(UserWarning), pytest.raises(ConversionError, match=r"GeForce \(CUDA 1\) did not take"):
        onnx_session.run(graph, {"x": X}, card, {})


@needs_azure
def test_verification_finds_a_silent_fallback_and_says_which_device_it_was(tiny_package: Path) -> None:
    package = open_package(tiny_package)

    report = verify(package, None, device=AZURE, only={"unet"}, listener=ignore)

    assert not report.passed
    (problem,) = report.all_problems
    assert problem.startswith("unet: nodes fell back to the CPU: ")
    assert " Conv" in problem
    assert report.summary().startswith("Elsewhere (Azure 3) ran 0.0% of ")
    assert report.summary().endswith(" nodes, 0.0% of the time")
    assert report.document()["submodels"][0]["placement"]["node_share"] == 0.0


def saved(folder: Path, dtype: str) -> Path:
    model = parser.parse_model(
        f"""<ir_version: 10, opset_import: ["" : 18]>
        g ({dtype}[batch, 3] x) => ({dtype}[batch, 3] y) {{ y = Tanh(x) }}"""
    )
    path = folder / f"{dtype}.onnx"
    onnx.save(model, path)
    return path


@pytest.mark.parametrize(
    ("dtype", "upcast", "exact", "tf32"),
    [
        ("float", False, True, "0"),
        ("float", False, False, None),
        ("float16", True, True, "0"),
        ("float16", True, False, None),
        ("float16", False, True, None),
        ("float16", False, False, None),
    ],
)
def test_cuda_computes_float32_at_full_precision_where_that_is_asked_for(
    tmp_path: Path, dtype: str, upcast: bool, exact: bool, tf32: str | None
) -> None:
    cuda = provider_for("cuda")
    options = onnx_session.provider_options(saved(tmp_path, dtype), cuda, upcast=upcast, exact=exact)

    assert options.pop("use_tf32", None) == tf32
    assert options == cuda.provider_options


def test_a_device_is_chosen_by_its_number_or_by_its_own_word() -> None:
    assert Device(provider=provider_for("cuda"), name="x", number=1).options == {"device_id": "1"}
    gpu = Device(provider=provider_for("openvino"), name="OpenVINO GPU.0", number=1, option="GPU.0")
    assert gpu.options == {"device_type": "GPU.0"}
    assert CPU.options == {}


def written(folder: Path, text: str, **weights: Any) -> Path:
    model = parser.parse_model(f'<ir_version: 10, opset_import: ["" : 18, "com.microsoft" : 1]> {text}')
    for name, array in weights.items():
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    onnx.save(model, folder / "model.onnx")
    return folder / "model.onnx"


def test_truth_stays_truth_and_every_float_is_float32(tmp_path: Path) -> None:
    text = "g (float16[n, 3] x) => (bool[n, 3] b, float16[n, 3] y) { b = Greater(x, zero) y = Neg(x) }"
    path = written(tmp_path, text, zero=np.zeros(1, np.float16))
    outcome = onnx_session.run(path, {"x": X}, CPU, {})
    assert {name: value.dtype.name for name, value in outcome.outputs.items()} == {
        "b": "bool",
        "y": "float32",
    }
    assert outcome.outputs["b"].tolist() == (X > 0).tolist()
    assert outcome.outputs["y"].tolist() == (-X.astype(np.float16)).astype(np.float32).tolist()
    assert outcome.seconds > 0


FOLDED = "g (float[batch, 3] x) => (float[batch, 2] y) { n = Neg(w) y = MatMul(x, n) }"


def configured(session: Any, name: str) -> str:
    try:
        return str(session.get_session_options().get_session_config_entry(name))
    except RuntimeError:
        return ""


@pytest.mark.parametrize("frugal", [False, True])
def test_a_session_for_one_run_takes_little_memory(frugal: bool, tmp_path: Path) -> None:
    path = written(tmp_path, FOLDED, w=np.ones((3, 2), np.float32))
    session = onnx_session.open_session(path, CPU, {}, frugal=frugal)
    options = session.get_session_options()
    assert options.enable_cpu_mem_arena is not frugal
    assert options.enable_mem_pattern is not frugal
    levels = onnxruntime.GraphOptimizationLevel
    level = levels.ORT_ENABLE_EXTENDED if frugal else levels.ORT_ENABLE_ALL
    assert options.graph_optimization_level == level
    assert configured(session, "session.disable_prepacking") == ("1" if frugal else "")
    assert configured(session, "session.record_ep_graph_assignment_info") == "1"
    # A constant is not computed beforehand, which would be a copy of the weight.
    assert read_placement(session, CPU.provider.name).nodes == {CPU.provider.name: 1 + frugal}
    assert options.log_severity_level == 4
    assert not options.enable_profiling


@pytest.mark.parametrize(("from_bytes", "arena"), [(12, True), (13, False)])
def test_only_large_weights_bring_an_arena(
    from_bytes: int, arena: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "g (float16[batch, 3] x) => (float16[batch, 2] y) { y = MatMul(x, w) }"
    path = written(tmp_path, text, w=np.ones((3, 2), np.float16))
    monkeypatch.setattr(onnx_session, "ARENA_FROM_BYTES", from_bytes)
    session = onnx_session.open_session(path, CPU, {})
    assert session.get_session_options().enable_cpu_mem_arena is arena


def test_a_float16_graph_on_the_cpu_is_for_one_run_always(tmp_path: Path) -> None:
    text = "g (float16[batch, 3] x) => (float16[batch, 2] y) { y = MatMul(x, w) }"
    path = written(tmp_path, text, w=np.ones((3, 2), np.float16))
    session = onnx_session.open_session(path, CPU, {})
    assert not session.get_session_options().enable_cpu_mem_arena
    assert not session.get_session_options().enable_mem_pattern
    assert configured(session, "session.disable_prepacking") == "1"


@pytest.mark.parametrize("upcast", [False, True])
def test_a_float16_weight_is_widened_when_it_is_wanted(
    upcast: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # ONNX Runtime fuses the last two at its extended level.
    layers = [f"a{n} = MatMul(y{n}, w{n}) b{n} = Sigmoid(a{n}) y{n + 1} = Mul(a{n}, b{n})" for n in range(8)]
    text = f"g (float16[2, 2] y0) => (float16[2, 2] y8) {{ {' '.join(layers)} }}"
    weights = {f"w{n}": np.full((2, 2), n, np.float16) for n in range(8)}
    monkeypatch.setattr(onnx_session, "is_profiled", lambda _: True)
    session = onnx_session.open_session(written(tmp_path, text, **weights), CPU, {}, upcast=upcast)
    session.run(None, {"y0": np.ones((2, 2), np.float32 if upcast else np.float16)})
    profile = Path(session.end_profiling())
    entries = json.loads(profile.read_text(encoding="utf-8"))
    profile.unlink()
    ran = [each["args"]["op_name"] for each in entries if each["name"].endswith("_kernel_time")]
    products = [place for place, operator in enumerate(ran) if "MatMul" in operator]
    assert len(products) == 8
    assert ran[: products[0]].count("Cast") == (1 if upcast else 2)  # of the first weight, and of the input
    assert [ran[before:after].count("Cast") for before, after in pairwise(products)] == [1] * 7


def test_products_of_four_bits_are_packed_all_the_same(tmp_path: Path) -> None:
    text = """g (float[n, 64] x) => (float[n, 2] y) {
        y = com.microsoft.MatMulNBits <K = 64, N = 2, bits = 4, block_size = 64> (x, w, s)
    }"""
    path = written(tmp_path, text, w=np.zeros((2, 1, 32), np.uint8), s=np.ones((2, 1), np.float32))
    session = onnx_session.open_session(path, CPU, {}, frugal=True)
    assert configured(session, "session.disable_prepacking") == ""
    assert not session.get_session_options().enable_cpu_mem_arena
    assert not session.get_session_options().enable_mem_pattern


@needs_azure
def test_another_provider_s_sessions_keep_their_optimisers_and_profile(tmp_path: Path) -> None:
    path = written(tmp_path, FOLDED, w=np.ones((3, 2), np.float32))
    session = onnx_session.open_session(path, AZURE, {"batch": 2}, frugal=True)
    options = session.get_session_options()
    assert not options.enable_cpu_mem_arena
    assert options.graph_optimization_level == onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    assert read_placement(session, AZURE.provider.name).nodes == {"CPUExecutionProvider": 1}
    assert options.enable_profiling
    assert session.get_inputs()[0].shape == [2, 3]
    Path(session.end_profiling()).unlink()


def test_sizes_stay_free_where_a_provider_takes_any(tmp_path: Path) -> None:
    path = written(tmp_path, FOLDED, w=np.ones((3, 2), np.float32))
    session = onnx_session.open_session(path, CPU, {"batch": 2}, replayed=True)
    assert session.get_inputs()[0].shape == ["batch", 3]


def test_weights_may_be_given_instead_of_those_of_the_file(graph: Path) -> None:
    other = np.full((3, 2), 0.5, np.float32)
    session = onnx_session.open_session(graph, CPU, {}, weights={"w": other})
    np.testing.assert_allclose(session.run(None, {"x": X})[0], np.tanh(X @ other), rtol=1e-5)


ATTENTION = """g (float[1, length, 16] x) => (float[1, length, 16] y) {
    y = com.microsoft.MultiHeadAttention <num_heads = 2> (x, x, x)
}"""


def on_azure(path: Path, sizes: dict[str, int], **more: Any) -> Placement:
    return placed(path, replace(AZURE, provider=replace(AZURE.provider, **more)), sizes)


def placed(path: Path, device: Device, sizes: dict[str, int]) -> Placement:
    session = onnx_session.open_session(path, device, sizes)
    Path(session.end_profiling()).unlink()
    return read_placement(session, device.provider.name)


@needs_azure
def test_attention_that_a_device_leaves_to_the_cpu_is_written_out(tmp_path: Path) -> None:
    path = written(tmp_path, ATTENTION)
    assert on_azure(path, {"length": 4}).elsewhere == {"MultiHeadAttention": 1}
    checked = on_azure(path, {"length": 4}, checks_attention=True)
    assert "MultiHeadAttention" not in checked.elsewhere
    assert "MatMul" in str(checked.elsewhere)
    # The CPU computes it right itself.
    cpu = replace(CPU, provider=replace(CPU.provider, checks_attention=True))
    session = onnx_session.open_session(path, cpu, {})
    assert read_placement(session, cpu.provider.name).nodes == {"CPUExecutionProvider": 1}


@needs_azure
def test_attention_is_sliced_where_all_its_scores_are_stored(tmp_path: Path) -> None:
    path = written(tmp_path, ATTENTION)
    sizes = {"length": 8192}  # 512 MiB of scores
    assert on_azure(path, sizes).elsewhere == {"MultiHeadAttention": 1}
    assert on_azure(path, sizes, stores_scores=True).elsewhere["MultiHeadAttention"] == 2


def test_attention_is_tried_without_recording_launches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is tried runs once, on arrays of main memory, which WebGPU cannot record."""
    opened, recorded = onnx_session._session, []

    def watched(model: str | bytes, **given: Any) -> Any:
        recorded.append("recorded" in given["settings"])
        return opened(model, **given)

    monkeypatch.setattr(onnx_session, "_session", watched)
    provider = replace(CPU.provider, checks_attention=True, replay_options={"recorded": "1"})
    # Other heads than elsewhere: each kind is tried once a process.
    path = written(tmp_path, ATTENTION.replace("num_heads = 2", "num_heads = 4"))
    onnx_session.open_session(path, replace(CPU, provider=provider), {"length": 4}, replayed=True)
    assert recorded == [False, True]
    onnx_session.open_session(path, replace(CPU, provider=provider), {"length": 4})
    assert not any(recorded[2:])


CONVOLUTION = """g (float[1, 256, height, width] x) => (float[1, 8, height, width] y) {
    y = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (x, w)
}"""


@needs_azure
def test_convolutions_over_few_pixels_are_products_where_that_is_faster(tmp_path: Path) -> None:
    path = written(tmp_path, CONVOLUTION, w=np.ones((8, 256, 3, 3), np.float32))
    sizes = {"height": 4, "width": 5}
    assert "MatMul" not in on_azure(path, sizes, im2col_pixels=19).elsewhere
    assert "MatMul" in on_azure(path, sizes, im2col_pixels=20).elsewhere


@pytest.mark.parametrize("linked", [False, True])
def test_large_convolutions_of_3x3_are_products_of_transformed_tiles(tmp_path: Path, *, linked: bool) -> None:
    weight = np.random.default_rng(1).normal(0, 0.02, (256, 256, 3, 3)).astype(np.float32)
    path = written(tmp_path, CONVOLUTION.replace("float[1, 8,", "float[1, 256,"), w=weight)
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="weights")
    if linked:  # as packages' files may be
        os.link(tmp_path / "weights", tmp_path / "another name")
    sizes = {"height": 4, "width": 6}
    device = replace(
        CPU, provider=replace(CPU.provider, winograd=Winograd(least_pixels=24), sizes=FIXED_SIZES)
    )
    feeds = {"x": np.random.default_rng(0).standard_normal((1, 256, 4, 6)).astype(np.float32)}

    def computed(weights: dict[str, Any], height: int = 4) -> Any:
        session = onnx_session.open_session(path, device, {**sizes, "height": height}, weights=weights)
        return session.run(None, {"x": feeds["x"][:, :, :height]})[0]

    def expected(weights: dict[str, Any]) -> Any:
        return onnx_session.open_session(path, CPU, {}, weights=weights).run(None, feeds)[0]

    other = {"w": weight[::-1].copy()}
    np.testing.assert_allclose(computed({}), expected({}), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(computed(other), expected(other), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(computed({}, height=2)[:, :, :1], expected({})[:, :, :1], rtol=1e-4, atol=1e-4)


@needs_azure
def test_convolutions_stay_where_a_device_was_timed_and_is_faster_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weight = np.ones((256, 256, 3, 3), np.float32)
    path = written(tmp_path, CONVOLUTION.replace("float[1, 8,", "float[1, 256,"), w=weight)
    sizes = {"height": 4, "width": 6}
    for faster in (True, False):
        monkeypatch.setattr(winograd_check, "_answers", {(str(AZURE), ir.DataType.FLOAT): faster})
        timed = on_azure(path, sizes, winograd=Winograd(least_pixels=24, timed=True))
        assert ("MatMul" in timed.elsewhere) is faster
        assert "MatMul" in on_azure(path, sizes, winograd=Winograd(least_pixels=24)).elsewhere


@needs_azure
def test_where_memory_is_short_convolutions_stay(tmp_path: Path) -> None:
    weight = np.ones((256, 256, 3, 3), np.float32)
    path = written(tmp_path, CONVOLUTION.replace("float[1, 8,", "float[1, 256,"), w=weight)
    device = replace(AZURE, provider=replace(AZURE.provider, winograd=Winograd(least_pixels=24)))
    for winograd in (True, False):
        found = placed(path, replace(device, winograd=winograd), {"height": 4, "width": 6})
        assert ("MatMul" in found.elsewhere) is winograd


@needs_azure
def test_a_device_that_cannot_run_the_trial_keeps_its_convolutions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_answers, "file", lambda: tmp_path / "devices.json")
    monkeypatch.setattr(winograd_check, "_answers", {})
    weight = np.ones((256, 256, 3, 3), np.float32)
    path = written(tmp_path, CONVOLUTION.replace("float[1, 8,", "float[1, 256,"), w=weight)
    timed = on_azure(path, {"height": 4, "width": 6}, winograd=Winograd(least_pixels=24, timed=True))
    assert "Conv" in timed.elsewhere


def test_a_promised_initializer_is_computed_and_not_a_part_of_the_model(tmp_path: Path) -> None:
    weight = np.ones((256, 256, 3, 3), np.float32)
    path = written(tmp_path, CONVOLUTION.replace("float[1, 8,", "float[1, 256,"), w=weight)
    edit = partial(winograd_convolution, sizes={"height": 4, "width": 6}, least_pixels=24)
    graph = session_graph(path, CPU.provider, [edit])
    np.testing.assert_array_equal(graph.computed["w_winograd"], transformed_kernel(weight))
    assert list(graph.computed) == ["w_winograd"]
    assert graph.removed == {"w"}
    assert isinstance(graph.model, bytes)
    assert len(graph.model) < weight.nbytes // 100


def test_a_run_that_fails_says_so_in_one_line(graph: Path) -> None:
    with pytest.raises(ConversionError) as caught:
        onnx_session.run(graph, {"x": X.T}, CPU, {})
    assert caught.value.code == "session.failed"
    assert caught.value.message.startswith(f"{CPU} cannot run {graph}: [ONNXRuntimeError] : 2 : INVALID")
    assert "\n" not in caught.value.message


def test_what_onnx_runtime_says_is_understood() -> None:
    refused = RuntimeError("This session cannot use the graph capture feature as requested by the user")
    assert onnx_session.cannot_replay(refused)
    assert not onnx_session.wants_float16(refused)
    without = RuntimeError("Program Cast requires f16 but the device does not support it.")
    assert onnx_session.wants_float16(without)
    assert not onnx_session.cannot_replay(without)


def test_a_precision_is_read_off_outputs_and_weights(tmp_path: Path) -> None:
    text = "g (float[n, 3] x) => (float[n, 2] y) { c = Cast <to = 1> (w) y = MatMul(x, c) }"
    path = written(tmp_path, text, w=np.ones((3, 2), np.float16))
    assert (onnx_session._is_half(path), onnx_session._stores_half(path)) == (False, True)
    assert onnx_session._is_half(saved(tmp_path, "float16"))
    assert not onnx_session._stores_half(saved(tmp_path, "float16"))

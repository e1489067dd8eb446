"""Sessions as verification opens them; the one that falls back is ONNX Runtime's own Azure provider."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper, parser

from conversions.errors import ConversionError
from conversions.events import ignore
from conversions.package.layout import open_package
from conversions.providers import onnx_session
from conversions.providers.devices import CPU, Device
from conversions.providers.table import FIXED_SIZES, Provider, provider_for
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

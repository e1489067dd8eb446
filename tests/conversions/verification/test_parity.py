"""What verification says of files, graphs and numbers."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from conversions.errors import ConversionError
from conversions.events import Advanced, Event, Finished, Started, ignore
from conversions.package.layout import Package, open_package
from conversions.providers.devices import CPU
from conversions.providers.onnx_session import Outcome
from conversions.verification.ep_assignment import Placement
from conversions.verification.parity import (
    GATES_DB,
    QUANTIZATION_GATES_DB,
    ParityReport,
    _judge,
    check_files,
    check_graph,
    demand_valid_graph,
    verify,
)
from conversions.verification.reference import Reference
from tests.demo_package import demo_package

ALL_HERE = Placement(provider="P", nodes={"P": 3})
EXPECTED = np.linspace(-1, 1, 64, dtype=np.float32)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return demo_package(tmp_path_factory.mktemp("parity") / "package", copy=True).folder


@pytest.fixture
def package(made: Path, tmp_path: Path) -> Package:
    return open_package(Path(shutil.copytree(made, tmp_path / "package")))


def reference_of(unquantized: Any = None, **outputs: Any) -> Reference:
    return Reference(outputs=outputs, largest=1.0, largest_deviation=1.0, unquantized=unquantized)


def judged(found: Any, precision: str = "fp16", placement: Placement = ALL_HERE, **more: Any) -> Any:
    outputs = found if isinstance(found, dict) else {"y": found}
    outcome = Outcome(outputs=outputs, placement=placement, seconds=0.5)
    reference = more.get("reference", reference_of(y=EXPECTED))
    return _judge("unet", outcome, reference, precision, "PyTorch")


def off_by(decibels: float) -> Any:
    """EXPECTED with an error that has this PSNR against its range of 2."""
    return EXPECTED + np.float32(2 * 10 ** (-decibels / 20))


@pytest.mark.parametrize(("precision", "gate"), [("fp32", 80), ("fp16", 40), ("int8", 40), ("int4", 40)])
def test_numbers_must_agree_as_closely_as_their_precision_can(precision: str, gate: float) -> None:
    assert GATES_DB[precision] == gate
    close, far = judged(off_by(gate + 1), precision), judged(off_by(gate - 1), precision)
    assert close.problems == ()
    assert far.problems == (f"it agrees with PyTorch to only {gate - 1:.1f} dB; {gate:.0f} dB are required",)
    assert far.parity.psnr_db == pytest.approx(gate - 1, abs=0.01)
    assert far.parity.gate_db == gate
    assert far.parity.max_abs_error == pytest.approx(2 * 10 ** (-(gate - 1) / 20), rel=1e-2)
    assert 0.9 < far.parity.cosine <= 1
    assert (far.submodel, far.seconds, far.finite, far.quantization_db) == ("unet", 0.5, True, None)


def test_the_worst_output_counts() -> None:
    found = {"a": off_by(50), "b": off_by(45), "c": off_by(70)}
    reference = reference_of(a=EXPECTED, b=EXPECTED, c=EXPECTED)
    report = judged(found, reference=reference)
    assert report.parity.psnr_db == pytest.approx(45, abs=0.01)
    assert report.parity.max_abs_error == pytest.approx(2 * 10 ** (-45 / 20), rel=1e-3)
    assert report.parity.cosine == min(judged(value).parity.cosine for value in found.values())


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_named_and_not_compared(number: float) -> None:
    spoiled = np.array([1, number, 3], np.float32)
    report = judged({"y": spoiled}, reference=reference_of(y=np.ones(3, np.float32)))
    assert report.problems == ("its output y holds NaN or infinity",)
    assert not report.finite
    alone = judged({"a": EXPECTED, "y": spoiled}, reference=None)
    assert alone.problems == ("its output y holds NaN or infinity",)
    assert alone.parity is None


@pytest.mark.parametrize(("precision", "gate"), QUANTIZATION_GATES_DB.items())
def test_quantised_weights_may_cost_so_much(precision: str, gate: float) -> None:
    assert gate == {"int8": 30.0, "int4": 12.0}[precision]

    def report(decibels: float) -> Any:
        exact = {"y": EXPECTED}
        rounded = off_by(decibels)
        return judged(rounded, precision, reference=reference_of(exact, y=rounded))

    assert report(gate + 1).problems == ()
    assert report(gate + 1).quantization_db == pytest.approx(gate + 1, abs=0.01)
    (problem,) = report(gate - 1).problems
    assert problem == (
        f"{precision} weights change what it computes too much: {gate - 1:.1f} dB, "
        f"and {gate:.0f} dB are required"
    )


def test_nodes_on_the_cpu_are_counted_by_operator() -> None:
    placement = Placement(provider="P", nodes={"P": 3, "C": 3}, elsewhere={"Resize": 1, "Conv": 2})
    report = judged(EXPECTED, placement=placement)
    assert report.problems == ("nodes fell back to the CPU: 2 Conv, 1 Resize",)


def report_of(*submodels: Any, problems: tuple[str, ...] = ()) -> ParityReport:
    return ParityReport(provider="P", device="GPU (P 0)", problems=problems, submodels=submodels)


def test_a_report_is_passed_where_nothing_is_wrong() -> None:
    right, wrong = judged(EXPECTED), judged(off_by(10))
    assert report_of(right).passed
    assert not report_of(right, wrong).passed
    assert not report_of(right, problems=("x is missing",)).passed
    assert report_of(wrong, problems=("x is missing",)).all_problems == (
        "x is missing",
        f"unet: {wrong.problems[0]}",
    )
    assert report_of(right).summary().startswith("GPU (P 0) ran 100.0% of ")
    assert report_of(right).time_share == 1.0


def test_plain_data_has_no_infinities() -> None:
    exact = judged(EXPECTED)
    assert exact.parity.psnr_db == math.inf
    document = report_of(exact).document()
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert (document["passed"], document["time_share"], document["reference"]) == (True, 1.0, None)
    (entry,) = document["submodels"]
    cosine = entry["parity"].pop("cosine")
    assert cosine == pytest.approx(1.0)
    assert entry["parity"] == {"psnr_db": None, "gate_db": 40.0, "max_abs_error": 0.0}
    assert entry["placement"]["node_share"] == entry["placement"]["time_share"] == 1.0
    assert entry["problems"] == []


def test_every_file_is_compared_with_the_manifest(package: Package) -> None:
    told: list[Event] = []
    assert check_files(package, told.append) == ()
    total = sum(each.size_bytes for each in package.files.values())
    assert told[0] == Started(task="files", label="checking files", total=total, unit="bytes")
    assert told[-1] == Finished(task="files", note=f"{len(package.files)} files")
    advanced = [each.done for each in told if isinstance(each, Advanced)]
    assert len(advanced) == len(package.files)
    assert advanced == sorted(advanced)
    assert advanced[-1] == total
    (package.folder / "tokenizer/vocab.json").unlink()
    graph, data = package.folder / "unet/model.onnx", package.folder / "unet/model.onnx_data"
    graph.write_bytes(graph.read_bytes() + b" ")
    content = bytearray(data.read_bytes())
    content[-1] ^= 1
    data.write_bytes(content)
    assert set(check_files(package, ignore)) == {
        "tokenizer/vocab.json is missing",
        f"unet/model.onnx has {graph.stat().st_size:,} bytes instead of {graph.stat().st_size - 1:,}",
        "unet/model.onnx_data was changed: its hash differs from the manifest's",
    }
    report = verify(package, None, device=CPU, listener=ignore)
    assert len(report.problems) == 3
    assert (report.submodels, report.passed, report.device) == ((), False, str(CPU))


def test_a_package_without_its_checkpoint_is_run(package: Package) -> None:
    told: list[Event] = []
    sizes = {"height": 3, "width": 5}
    report = verify(package, None, device=CPU, only={"vae_decoder"}, sizes=sizes, listener=told.append)
    assert report.passed
    (decoder,) = report.submodels
    assert (decoder.submodel, decoder.finite, decoder.parity) == ("vae_decoder", True, None)
    assert (report.provider, report.reference) == ("CPUExecutionProvider", None)
    task = "run vae_decoder"
    assert Started(task=task, label=f"vae_decoder: checking on {CPU}") in told
    assert told[-1] == Finished(task=task)


GRAPH = """<ir_version: 10, opset_import: ["" : 18, "com.microsoft" : 1]>
g (float[2, 3] x) => (float[2, 4] y) { y = MatMul(x, w) }"""


def saved(folder: Path, text: str = GRAPH, **place: Any) -> Path:
    """A graph whose weight lies in a file beside it, at a place that may be changed."""
    model = onnx.parser.parse_model(text)
    weight = onnx.numpy_helper.from_array(np.ones((3, 4), np.float32), "w")
    model.graph.initializer.append(weight)
    path = folder / "model.onnx"
    onnx.save(model, path, save_as_external_data=True, location="data", size_threshold=0)
    if place:
        changed = onnx.load(path, load_external_data=False)
        for entry in changed.graph.initializer[0].external_data:
            entry.value = str(place.get(entry.key, entry.value))
        path.write_bytes(changed.SerializeToString())
    return path


def test_a_graph_with_weights_inside_their_file_is_valid(tmp_path: Path) -> None:
    check_graph(saved(tmp_path))
    check_graph(saved(tmp_path, offset=0, length=48))
    norm = GRAPH.replace("y = MatMul(x, w)", "n = SimplifiedLayerNormalization(x, s) y = MatMul(n, w)")
    norm = norm.replace("(float[2, 3] x)", "(float[2, 3] x, float[3] s)")
    demand_valid_graph(saved(tmp_path, norm))


@pytest.mark.parametrize(
    "place", [{"length": 49}, {"offset": 1}, {"location": "gone"}, {"location": "../data"}]
)
def test_a_weight_beyond_its_file_is_refused(place: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(bytes(48))
    folder = tmp_path / "part"
    folder.mkdir()
    path = saved(folder, **place)
    with pytest.raises(onnx.checker.ValidationError, match="the weight w is not inside"):
        check_graph(path)
    with pytest.raises(ConversionError) as caught:
        demand_valid_graph(path)
    assert caught.value.code == "package.invalid_graph"
    assert caught.value.message.startswith(f"{path} is no valid ONNX graph: the weight w is not inside ")


@pytest.mark.parametrize(
    "text",
    [
        GRAPH.replace("MatMul", "NoSuchOperator"),
        GRAPH.replace("(x, w)", "(x, z)"),
        GRAPH.replace("(x, w)", "(x, w, w)"),
    ],
)
def test_a_graph_that_onnx_does_not_know_is_one_line(text: str, tmp_path: Path) -> None:
    path = saved(tmp_path, text)
    with pytest.raises(ConversionError, match="is no valid ONNX graph: ") as caught:
        demand_valid_graph(path)
    assert caught.value.code == "package.invalid_graph"
    assert "\n" not in caught.value.message
    assert not caught.value.message.endswith("..")


def test_what_is_no_graph_at_all_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"\xff" * 100)
    with pytest.raises(ConversionError, match="is no valid ONNX graph"):
        demand_valid_graph(tmp_path / "model.onnx")

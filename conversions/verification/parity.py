"""Verify a package: file hashes, ONNX checker, placement, and parity with a reference."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from conversions.checkpoint.folder import Checkpoint
from conversions.errors import ConversionError
from conversions.events import Advanced, Finished, Listener, Started
from conversions.isolated_process import isolated_process
from conversions.package.layout import Package, record
from conversions.providers import onnx_session
from conversions.providers.devices import Device
from conversions.shape_inference.contrib import IN_ONNX_DOMAIN
from conversions.verification.ep_assignment import Placement, describe_shares, share_of_time
from conversions.verification.metrics import compare
from conversions.verification.reference import Reference, make_inputs
from conversions.verification.references import NAMES, ReferenceKind, default_reference, run_references

# The lowest accepted PSNR of a submodel against PyTorch in float32. apple/ml-stable-diffusion asks for 35 dB;
# float16 arithmetic alone costs these models 60 to 80 dB, a wrong graph leaves less than 30.
GATES_DB: Mapping[str, float] = {"fp32": 80.0, "fp16": 40.0, "int8": 40.0, "int4": 40.0}

# How far outputs with quantised weights may be from those with the checkpoint's own, both in float32.
# Source: docs/explanation/quantisation.md says what was measured, and what these gates can tell.
QUANTIZATION_GATES_DB: Mapping[str, float] = {"int8": 30.0, "int4": 12.0}


@dataclass(frozen=True, kw_only=True)
class Parity:
    """Parity of a submodel with a reference in float32 on the same weights; the worst of its outputs.

    Attributes:
        psnr_db: Peak signal-to-noise ratio against the reference's own range.
        gate_db: The lowest accepted PSNR.
        max_abs_error: Largest difference.
        cosine: Lowest cosine similarity.
    """

    psnr_db: float
    gate_db: float
    max_abs_error: float
    cosine: float


@dataclass(frozen=True, kw_only=True)
class SubmodelReport:
    """Result of verifying one submodel.

    Attributes:
        submodel: Its name.
        placement: Where its nodes ran, and for how long.
        finite: Whether no output held NaN or infinity.
        parity: None when there was no checkpoint to compare with.
        quantization_db: PSNR of the reference's outputs with quantised weights against those with the
            checkpoint's own: what the quantisation costs. None where nothing is quantised or compared.
        seconds: Time of one run.
        problems: Descriptions of what is wrong; empty when nothing is.
    """

    submodel: str
    placement: Placement
    finite: bool
    parity: Parity | None
    quantization_db: float | None
    seconds: float
    problems: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class ParityReport:
    """Result of verifying a package.

    Attributes:
        provider: The execution provider that ran it.
        device: The device, by name and number.
        problems: What is wrong with its files.
        submodels: One report each.
        reference: What the numbers were compared with; None where none were.
    """

    provider: str
    device: str
    problems: tuple[str, ...]
    submodels: tuple[SubmodelReport, ...]
    reference: ReferenceKind | None = None

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems and not any(report.problems for report in self.submodels)

    @property
    def all_problems(self) -> tuple[str, ...]:
        """Descriptions of everything that is wrong."""
        return self.problems + tuple(
            f"{report.submodel}: {problem}" for report in self.submodels for problem in report.problems
        )

    @property
    def time_share(self) -> float | None:
        """The provider's share of the run time; None when unknown."""
        return share_of_time((report.placement, report.seconds) for report in self.submodels)

    def summary(self) -> str:
        """Name the device and its share of the nodes and of the time."""
        shares = describe_shares([report.placement for report in self.submodels], self.time_share)
        return f"{self.device} ran {shares}"

    def document(self) -> dict[str, Any]:
        """Return the report as plain data for JSON; infinities become null."""
        content = _without_infinities({"passed": self.passed, "time_share": self.time_share, **asdict(self)})
        assert isinstance(content, dict)
        for entry, report in zip(content["submodels"], self.submodels, strict=True):
            entry["placement"] |= {
                "node_share": report.placement.node_share,
                "time_share": report.placement.time_share,
            }
        return content


def check_files(package: Package, listener: Listener) -> tuple[str, ...]:
    """Compare every file with the manifest: existence, size and hash."""
    problems = []
    total = sum(known.size_bytes for known in package.files.values())
    listener(Started(task="files", label="checking files", total=total, unit="bytes"))
    done = 0
    for name, known in package.files.items():
        path = package.folder / name
        if not path.is_file():
            problems.append(f"{name} is missing")
        elif path.stat().st_size != known.size_bytes:
            problems.append(f"{name} has {path.stat().st_size:,} bytes instead of {known.size_bytes:,}")
        elif record(path) != known:
            problems.append(f"{name} was changed: its hash differs from the manifest's")
        done += known.size_bytes
        listener(Advanced(task="files", done=done))
    listener(Finished(task="files", note=f"{len(package.files)} files"))
    return tuple(problems)


def check_graph(graph: Path) -> None:
    """Run the ONNX checker on a graph, and see that its weights lie inside their files.

    The checker itself refuses files with several hard links, which is what linked weights are; so it gets
    the graph with external weights as inputs. Nor does it know the RMS norm that ONNX Runtime adds to ONNX's
    domain, with the inputs and attributes of LayerNormalization.

    Raises:
        onnx.checker.ValidationError: The graph is invalid.
    """
    import onnx
    from onnx.external_data_helper import ExternalDataInfo, uses_external_data

    model = onnx.load(graph, load_external_data=False)
    for node in model.graph.node:
        if node.op_type in IN_ONNX_DOMAIN:
            node.op_type = "LayerNormalization"
    external = [tensor for tensor in model.graph.initializer if uses_external_data(tensor)]
    inside = [tensor for tensor in model.graph.initializer if not uses_external_data(tensor)]
    for tensor in external:
        place = ExternalDataInfo(tensor)
        path = graph.parent / place.location
        end = int(place.offset or 0) + int(place.length or 0)
        if Path(place.location).name != place.location or not path.is_file() or end > path.stat().st_size:
            raise onnx.checker.ValidationError(f"the weight {tensor.name} is not inside {path}")
        model.graph.input.append(
            onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        )
    del model.graph.initializer[:]
    model.graph.initializer.extend(inside)
    onnx.checker.check_model(model)


def demand_valid_graph(graph: Path) -> None:
    """Run :func:`check_graph`, and say what it found in one line.

    Raises:
        ConversionError: ``package.invalid_graph``.
    """
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        check_graph(graph)
    except (onnx.checker.ValidationError, DecodeError, RuntimeError, ValueError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ConversionError(
            "package.invalid_graph", f"{graph} is no valid ONNX graph: {reason.rstrip('.')}."
        ) from error


def verify(
    package: Package,
    checkpoint: Checkpoint | None,
    *,
    device: Device,
    only: Collection[str] | None = None,
    sizes: Mapping[str, int] | None = None,
    references: Mapping[str, Reference] | None = None,
    reference: ReferenceKind | None = None,
    graph_cache: Path | None = None,
    listener: Listener,
) -> ParityReport:
    """Verify a package on a device.

    The reference and the sessions run in child processes, one after the other, so that only one large
    model is in memory at a time.

    Args:
        package: The package.
        checkpoint: What it was made of, to compare numbers with; None compares nothing.
        device: Where the submodels run, from ``conversions.providers.devices.list_devices``.
        only: Names of the submodels to verify; None verifies all.
        sizes: Sizes of free dimensions instead of each submodel's own.
        references: What ``run_references`` gave before; None runs it where there is a checkpoint.
        reference: What computes, or has computed, the numbers to compare with; None takes PyTorch where it is
            installed.
        graph_cache: Folder of this user's traced graphs, which a reference without PyTorch needs.
        listener: Told of the progress.

    Raises:
        ConversionError: The device refuses a submodel, or a process died.
    """
    provider = device.provider.name
    asked = reference or default_reference()
    submodels = {
        submodel.name: submodel for submodel in package.submodels if only is None or submodel.name in only
    }
    problems = check_files(package, listener)
    if problems:
        return ParityReport(provider=provider, device=str(device), problems=problems, submodels=())
    configs = {name: package.config(name) for name in submodels}
    chosen = {name: {**submodel.kind.sizes, **(sizes or {})} for name, submodel in submodels.items()}
    inputs = {
        name: make_inputs(submodel.kind, configs[name], chosen[name]) for name, submodel in submodels.items()
    }
    if references is None and checkpoint is not None:
        quantized = {name: package.quantized(name) for name in submodels}
        references = run_references(
            submodels, checkpoint, inputs, quantized, listener, kind=asked, graph_cache=graph_cache
        )
    references = references or {}
    reports = []
    with isolated_process("running the submodels") as process:
        for name in submodels:
            task = f"run {name}"
            listener(Started(task=task, label=f"{name}: checking on {device}"))
            try:
                process.call(demand_valid_graph, package.graph(name))
                outcome = process.call(
                    onnx_session.run, package.graph(name), inputs[name], device, chosen[name]
                )
            finally:
                listener(Finished(task=task))
            reports.append(_judge(name, outcome, references.get(name), package.precision(name), NAMES[asked]))
    return ParityReport(
        provider=provider,
        device=str(device),
        problems=problems,
        submodels=tuple(reports),
        reference=asked if references else None,
    )


def _judge(
    name: str, outcome: onnx_session.Outcome, reference: Reference | None, precision: str, compared_with: str
) -> SubmodelReport:
    problems = []
    gate_db = GATES_DB[precision]
    finite = True
    parity = None
    for output, found in outcome.outputs.items():
        closeness = compare(found, found if reference is None else reference.outputs[output])
        if not closeness.finite:
            finite = False
            problems.append(f"its output {output} holds NaN or infinity")
        if reference is not None:
            worst = parity or Parity(psnr_db=math.inf, gate_db=gate_db, max_abs_error=0.0, cosine=1.0)
            parity = Parity(
                psnr_db=min(worst.psnr_db, closeness.psnr_db),
                gate_db=gate_db,
                max_abs_error=max(worst.max_abs_error, closeness.max_abs_error),
                cosine=min(worst.cosine, closeness.cosine),
            )
    if parity is not None and finite and parity.psnr_db < gate_db:
        problems.append(
            f"it agrees with {compared_with} to only {parity.psnr_db:.1f} dB; {gate_db:.0f} dB are required"
        )
    quantization_db = None
    if reference is not None and reference.unquantized is not None:
        quantization_db = min(
            compare(reference.outputs[output], exact).psnr_db
            for output, exact in reference.unquantized.items()
        )
        if quantization_db < QUANTIZATION_GATES_DB[precision]:
            problems.append(
                f"{precision} weights change what it computes too much: {quantization_db:.1f} dB, "
                f"and {QUANTIZATION_GATES_DB[precision]:.0f} dB are required"
            )
    if outcome.placement.elsewhere:
        listed = ", ".join(f"{count} {op}" for op, count in sorted(outcome.placement.elsewhere.items()))
        problems.append(f"nodes fell back to the CPU: {listed}")
    return SubmodelReport(
        submodel=name,
        placement=outcome.placement,
        finite=finite,
        parity=parity,
        quantization_db=quantization_db,
        seconds=outcome.seconds,
        problems=tuple(problems),
    )


def _without_infinities(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_infinities(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_infinities(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

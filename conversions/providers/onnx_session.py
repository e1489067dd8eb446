"""An ONNX Runtime session on one device: opened in one way wherever a submodel runs, nothing silent."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from conversions.errors import ConversionError
from conversions.passes.upcast_to_fp32 import upcast_to_fp32
from conversions.providers.devices import Device, listed_by_onnxruntime
from conversions.providers.session_graph import Edit, session_graph
from conversions.providers.table import FIXED_SIZES, Provider
from conversions.verification.ep_assignment import Placement, recorded, timed
from conversions.verification.reference import Tensors

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a run gave.

    Attributes:
        outputs: By name, floats as float32.
        placement: Where each node ran, and for how long.
        seconds: Of the run alone.
    """

    outputs: Tensors
    placement: Placement
    seconds: float


def demand_onnxruntime() -> None:
    """Stop when ONNX Runtime cannot be imported.

    Raises:
        ConversionError: ``runtime.missing``.
    """
    try:
        import onnxruntime  # noqa: F401 - to see that it can be
    except ImportError as error:
        raise ConversionError("runtime.missing", f"ONNX Runtime cannot be used ({error}).") from error


def is_profiled(provider: Provider) -> bool:
    """Whether sessions of a provider measure their first run; on the CPU there is nothing to tell apart."""
    return provider.target != "cpu"


def open_session(
    graph: Path,
    device: Device,
    sizes: Mapping[str, int],
    *,
    upcast: bool = False,
    edits: Sequence[Edit] = (),
    log_severity: int = 4,
    frugal: bool = False,
) -> Any:
    """Open a session for a graph on a device and nowhere else.

    ONNX Runtime may still put single nodes on the CPU; ``recorded`` and ``timed`` tell which.

    Args:
        graph: The ONNX file of a submodel.
        device: Where to run.
        sizes: Sizes of free dimensions; used where the provider wants them fixed.
        upcast: Compute in float32 although the graph is float16, on the same stored weights.
        edits: Further changes of the graph for this session.
        log_severity: Least severity that ONNX Runtime prints; 4 prints what is fatal.
        frugal: Whether the session is for one run, which is to take little memory.

    Returns:
        The ``onnxruntime.InferenceSession``. It profiles itself where ``is_profiled``.

    Raises:
        ConversionError: ``session.fell_back``: ONNX Runtime made a session on another provider.
        Exception: Whatever ONNX Runtime raises when it can make none.
    """
    import onnxruntime

    provider = device.provider
    if provider.preload:
        _preload()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = log_severity
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    skipped = _for_one_run(options, provider) if frugal else []
    form = session_graph(graph, provider, (*edits, upcast_to_fp32) if upcast else edits)
    for key, value in {**provider.session_config, **form.config}.items():
        options.add_session_config_entry(key, value)
    if provider.sizes == FIXED_SIZES:
        for dimension, size in sizes.items():
            options.add_free_dimension_override_by_name(dimension, size)
    if is_profiled(provider):
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(tempfile.gettempdir()) / "sdsetup-profile")
    # Its own fallback would print, and go on with the CPU in the middle of a run.
    alone: dict[str, Any] = {"disabled_optimizers": skipped, "enable_fallback": 0}
    settings = dict(provider.provider_options)
    if provider.float32_options and (upcast or not _is_half(graph)):
        settings |= provider.float32_options
    if device.listed is not None:
        options.add_provider_for_devices([listed_by_onnxruntime()[device.listed]], settings)
        session = onnxruntime.InferenceSession(form.model, options, **alone)
    else:
        chosen = [(provider.name, {**settings, **device.options})]
        session = onnxruntime.InferenceSession(form.model, options, providers=chosen, **alone)
    if (taken := session.get_providers()[0]) != provider.name:
        raise ConversionError(
            "session.fell_back",
            f"{device} did not take {graph.parent.name}: ONNX Runtime fell back to {taken}.",
        )
    return session


def _for_one_run(options: Any, provider: Provider) -> list[str]:
    """Spare a session what pays off over many runs alone; returns the optimisers to leave out."""
    import onnxruntime

    # One run needs no arena and no plan; both would only raise the peak.
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False
    if provider.target != "cpu":
        return []
    # Optimising makes a float32 copy of every float16 weight, and packing one more of each: on SD 1.4's
    # U-Net 5.9 GB and 28 s for the one run, instead of 1.9 GB and 6 s.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.add_session_config_entry("session.disable_prepacking", "1")
    return ["ConstantFolding"]


def _preload() -> None:
    """Load CUDA's and cuDNN's libraries from pip's packages, where the system has none.

    What is missing is told by the session that then fails, so what is printed here goes to the log.
    """
    import onnxruntime

    with redirect_stdout(StringIO()) as printed:
        onnxruntime.preload_dlls()
    for line in printed.getvalue().splitlines():
        logger.debug(line)


def _is_half(graph: Path) -> bool:
    """Say whether a graph's answers are float16, and with them what it computes in."""
    import onnx

    outputs = onnx.load(graph, load_external_data=False).graph.output
    return any(each.type.tensor_type.elem_type == onnx.TensorProto.FLOAT16 for each in outputs)


def wants_float16(error: Exception) -> bool:
    """Say whether a run failed because the device does not compute in float16, as WebGPU's may not."""
    return "requires f16" in str(error)


def run(graph: Path, inputs: Tensors, device: Device, sizes: Mapping[str, int]) -> Outcome:
    """Run a graph once.

    Args:
        graph: The ONNX file.
        inputs: By name; floats are cast to the type that the graph wants.
        device: Where to run.
        sizes: Sizes of the free dimensions; used where the provider wants them fixed.

    Raises:
        ConversionError: ``session.fell_back`` or ``session.failed``: the device does not run the graph.
            ``session.no_float16``: it does not compute in float16.
    """
    try:
        session = open_session(graph, device, sizes, log_severity=3, frugal=True)
        feeds = {
            each.name: inputs[each.name].astype(np.float16)
            if each.type == "tensor(float16)"
            else inputs[each.name]
            for each in session.get_inputs()
        }
        began = perf_counter()
        results = session.run(None, feeds)
        seconds = perf_counter() - began
    except ConversionError:
        raise
    except Exception as error:  # ONNX Runtime's exceptions share no other base
        first_line = str(error).strip().splitlines()[0]
        message = f"{device} cannot run {graph}: {first_line}"
        if wants_float16(error):
            raise ConversionError("session.no_float16", message) from error
        raise ConversionError("session.failed", message) from error
    placement = recorded(session, device.provider.name)
    return Outcome(
        outputs={
            each.name: value if value.dtype == np.bool_ else value.astype(np.float32)
            for each, value in zip(session.get_outputs(), results, strict=True)
        },
        placement=timed(placement, session) if is_profiled(device.provider) else placement,
        seconds=seconds,
    )

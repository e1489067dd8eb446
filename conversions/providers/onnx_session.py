"""Open an ONNX Runtime session on one device, without silent fallback to the CPU."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import partial
from io import StringIO
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np

from conversions.errors import ConversionError
from conversions.passes.im2col_convolution import im2col_convolution
from conversions.passes.slice_attention import slice_attention
from conversions.passes.upcast_to_fp32 import upcast_to_fp32
from conversions.passes.winograd_convolution import winograd_convolution
from conversions.providers.attention_check import expand_wrong_attention
from conversions.providers.devices import Device, listed_by_onnxruntime
from conversions.providers.execution_order import widen_late
from conversions.providers.session_graph import Edit, session_graph
from conversions.providers.table import FIXED_SIZES, Provider
from conversions.providers.winograd_check import is_faster
from conversions.verification.ep_assignment import Placement, add_profile, read_placement
from conversions.verification.reference import Arrays

if TYPE_CHECKING:
    import onnx_ir as ir

logger = logging.getLogger(__name__)

ARENA_FROM_BYTES = 512 * 2**20
"""Weights from which on a session that saves main memory has ONNX Runtime's arena: denoisers and large text
encoders, not autoencoders."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Result of a run.

    Attributes:
        outputs: By name, floats as float32.
        placement: Where each node ran, and for how long.
        seconds: Run time, without loading.
    """

    outputs: Arrays
    placement: Placement
    seconds: float


def require_onnxruntime() -> None:
    """Raise when ONNX Runtime cannot be imported.

    Raises:
        ConversionError: ``runtime.missing``.
    """
    try:
        import onnxruntime  # noqa: F401 - to see that it can be
    except ImportError as error:
        raise ConversionError("runtime.missing", f"ONNX Runtime cannot be used ({error}).") from error


def is_profiled(provider: Provider) -> bool:
    """Whether sessions of a provider profile their first run; the CPU has only one provider to measure."""
    return provider.target != "cpu"


def open_session(
    graph: Path,
    device: Device,
    sizes: Mapping[str, int],
    *,
    upcast: bool = False,
    exact: bool = True,
    edits: Sequence[Edit] = (),
    weights: Mapping[str, Any] | None = None,
    part: ir.Model | None = None,
    log_severity: int = 4,
    frugal: bool = False,
    replayed: bool = False,
) -> Any:
    """Open a session for a graph on a device; raise instead of falling back.

    ONNX Runtime may still put single nodes on the CPU; ``read_placement`` and ``add_profile`` report which.

    Args:
        graph: The ONNX file of a submodel.
        device: Where to run.
        sizes: Sizes of free dimensions; used where the provider wants them fixed.
        upcast: Compute in float32 although the graph is float16, on the same stored weights.
        exact: Compute float32 at full precision, where the provider has a faster one.
        edits: Further changes of the graph for this session.
        weights: Arrays to use instead of what the graph's files hold, by initializer.
        part: A part of the graph to open instead of the whole; its weights are in the same files.
        log_severity: Least severity that ONNX Runtime prints; 4 prints what is fatal.
        frugal: Whether the session is for one run, which is to take little memory; on the CPU a float16
            graph always is.
        replayed: Whether kernels' launches are recorded and replayed, where the provider can.

    Returns:
        The ``onnxruntime.InferenceSession``. It profiles its first run if ``is_profiled``.

    Raises:
        ConversionError: ``session.fell_back``: ONNX Runtime opened the session on another provider.
        Exception: Whatever ONNX Runtime raises when it cannot open a session; see also ``cannot_replay``.
    """
    import onnxruntime

    provider = device.provider
    if provider.preload:
        _preload()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = log_severity
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    # A CPU widens float16 anyhow, at each run or for good. On two cores, SD 1.4's U-Net at 64x64 latents:
    # 2.1 GiB instead of 5.7, opened in 0.3 s instead of 17, and a step takes as long.
    frugal = frugal or (provider.target == "cpu" and _stores_half(graph))
    skipped = _save_memory(options, provider, graph, upcast=upcast) if frugal else []
    settings = provider_options(graph, provider, upcast=upcast, exact=exact)
    if upcast:
        edits = (*edits, upcast_to_fp32)
    tried = partial(_open_small, device=device, settings=settings)
    operators = graph.read_bytes()
    if (provider.checks_attention or provider.stores_scores) and b"MultiHeadAttention" in operators:
        if provider.checks_attention:
            edits = (*edits, partial(expand_wrong_attention, device=device, open_model=tried))
        if provider.stores_scores:
            edits = (*edits, partial(slice_attention, sizes=sizes))
    # Also where the session is frugal: what is verified is what images are made with.
    if device.winograd and (winograd := provider.winograd) is not None and b"Conv" in operators:
        edit = partial(
            winograd_convolution,
            sizes=sizes,
            least_pixels=winograd.least_pixels,
            in_turns=winograd.in_turns,
            weights=weights or {},
            is_faster=partial(is_faster, device=device, open_model=tried) if winograd.timed else None,
        )
        edits = (*edits, edit)
    if provider.im2col_pixels and b"Conv" in operators:
        edits = (*edits, partial(im2col_convolution, sizes=sizes, most_pixels=provider.im2col_pixels))
    # Not for what is tried above: it runs once, on arrays of main memory.
    if replayed:
        settings = {**settings, **provider.replay_options}
    form = session_graph(graph, provider, edits, part)
    for key, value in {**provider.session_config, **form.config}.items():
        options.add_session_config_entry(key, value)
    if provider.sizes == FIXED_SIZES:
        for dimension, size in sizes.items():
            options.add_free_dimension_override_by_name(dimension, size)
    if weights or form.computed:
        # Not add_initializer: measured on ONNX Runtime 1.32, a constant that is folded before, such as the
        # float32 copy of a float16 weight on the CPU, keeps the file's numbers and nothing says so.
        kept = {name: array for name, array in (weights or {}).items() if name not in form.removed}
        kept.update(form.computed)
        values = [onnxruntime.OrtValue.ortvalue_from_numpy(array) for array in kept.values()]
        options.add_external_initializers(list(kept), values)
    if is_profiled(provider):
        options.enable_profiling = True
        # ONNX Runtime adds the second, which sessions of two programs may share.
        options.profile_file_prefix = str(Path(tempfile.gettempdir()) / f"sdsetup-profile-{uuid4().hex}")
    session = _session(form.model, options=options, device=device, settings=settings, disabled=skipped)
    if (taken := session.get_providers()[0]) != provider.name:
        raise ConversionError(
            "session.fell_back",
            f"{device} did not take {graph.parent.name}: ONNX Runtime fell back to {taken}.",
        )
    return session


def _open_small(model: bytes, *, device: Device, settings: Mapping[str, str]) -> Any:
    """Open a session for a model that tries something on a device."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    # Not by the CPU in its place: that fails, and what was tried is not used.
    if device.provider.target != "cpu":
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    return _session(model, options=options, device=device, settings=settings)


def _session(
    model: str | bytes,
    *,
    options: Any,
    device: Device,
    settings: Mapping[str, str],
    disabled: Sequence[str] = (),
) -> Any:
    """Open a session for a model on a device alone."""
    import onnxruntime

    # ONNX Runtime's own fallback would print a message and continue on the CPU in the middle of a run.
    alone: dict[str, Any] = {"disabled_optimizers": list(disabled), "enable_fallback": 0}
    if device.listed is not None:
        options.add_provider_for_devices([listed_by_onnxruntime()[device.listed]], dict(settings))
        return onnxruntime.InferenceSession(model, options, **alone)
    chosen = [(device.provider.name, {**settings, **device.options})]
    return onnxruntime.InferenceSession(model, options, providers=chosen, **alone)


def provider_options(graph: Path, provider: Provider, *, upcast: bool, exact: bool) -> dict[str, str]:
    """Return the options of a provider for a session; arguments as of :func:`open_session`."""
    if exact and provider.float32_options and (upcast or not _is_half(graph)):
        return {**provider.provider_options, **provider.float32_options}
    return dict(provider.provider_options)


def _save_memory(options: Any, provider: Provider, graph: Path, *, upcast: bool) -> list[str]:
    """Turn off what only pays off over many runs; return the optimisers to disable."""
    import onnx_ir as ir
    import onnxruntime

    from conversions.forecast import weights_bytes

    if provider.target != "cpu":
        # One run gains nothing from the arena and the memory plan; both raise the peak.
        options.enable_cpu_mem_arena = False
        options.enable_mem_pattern = False
        return []
    widen_late(options)
    # The arena is faster, but what it has had stays with it in pieces. Beside large weights that is little:
    # SD 1.4's U-Net takes 2.1 GiB and 9.1 s a step instead of 3.0 and 10.7. A decoder's values are
    # large: it would take 14 s instead of 18, and at 768x768 3.6 GiB instead of 2.3.
    options.enable_cpu_mem_arena = weights_bytes(ir.load(graph)) >= ARENA_FROM_BYTES
    # Folding constants makes a float32 copy of every float16 weight for good, and prepacking another: on
    # SD 1.4's U-Net 5.9 GB and 28 s for one run.
    levels = onnxruntime.GraphOptimizationLevel
    # Nodes that are fused come after all others, and the Casts of an upcast graph would not wait for them:
    # 5.7 GiB instead of 2.1. Those of a float16 graph are added after the fusion.
    options.graph_optimization_level = levels.ORT_ENABLE_BASIC if upcast else levels.ORT_ENABLE_EXTENDED
    # Four-bit products are only fast on packed weights, which are small.
    if b"MatMulNBits" not in graph.read_bytes():
        options.add_session_config_entry("session.disable_prepacking", "1")
    return ["ConstantFolding"]


def _preload() -> None:
    """Load CUDA's and cuDNN's libraries from pip packages where the system has none.

    If a library is missing, opening the session fails with the reason; messages printed here go to the log.
    """
    import onnxruntime

    with redirect_stdout(StringIO()) as printed:
        onnxruntime.preload_dlls()
    for line in printed.getvalue().splitlines():
        logger.debug(line)


def _is_half(graph: Path) -> bool:
    """Whether a graph computes in float16, judged by its outputs."""
    import onnx

    outputs = onnx.load(graph, load_external_data=False).graph.output
    return any(each.type.tensor_type.elem_type == onnx.TensorProto.FLOAT16 for each in outputs)


def _stores_half(graph: Path) -> bool:
    """Whether a graph has float16 weights."""
    import onnx

    stored = onnx.load(graph, load_external_data=False).graph.initializer
    return any(each.data_type == onnx.TensorProto.FLOAT16 for each in stored)


def cannot_replay(error: Exception) -> bool:
    """Whether a session could not be opened because launches of its kernels cannot be recorded.

    Source: ONNX Runtime, core/session/inference_session.cc: nodes on another provider, or control flow.
    """
    return "graph capture feature" in str(error)


def wants_float16(error: Exception) -> bool:
    """Whether a run failed because the device does not support float16, as with some WebGPU devices."""
    return "requires f16" in str(error)


def run(graph: Path, inputs: Arrays, device: Device, sizes: Mapping[str, int]) -> Outcome:
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
    placement = read_placement(session, device.provider.name)
    return Outcome(
        outputs={
            each.name: value if value.dtype == np.bool_ else value.astype(np.float32)
            for each, value in zip(session.get_outputs(), results, strict=True)
        },
        placement=add_profile(placement, session) if is_profiled(device.provider) else placement,
        seconds=seconds,
    )

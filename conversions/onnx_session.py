"""An ONNX Runtime session for checking: one provider, nothing silent, and where each node really runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from conversions.errors import ConversionError
from conversions.reference import Tensors
from conversions.runnable import runnable

CPU = "CPUExecutionProvider"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a run gave.

    Attributes:
        outputs: By name, floats as float32.
        placement: Number of nodes on each provider, as ONNX Runtime placed them.
        fallback: Operators of the nodes that landed on the CPU although another provider was wanted.
        seconds: Of the run alone.
    """

    outputs: Tensors
    placement: Mapping[str, int]
    fallback: Mapping[str, int]
    seconds: float


def available_providers() -> list[str]:
    """Return the execution providers of the installed ONNX Runtime.

    Raises:
        ConversionError: ``runtime.missing`` when ONNX Runtime cannot be imported.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise ConversionError(
            "runtime.missing",
            f"ONNX Runtime cannot be used ({error}).",
            "Run: sdsetup doctor",
        ) from error
    return list(onnxruntime.get_available_providers())


def run(
    graph: Path, inputs: Tensors, provider: str, options: Mapping[str, str], sizes: Mapping[str, int] | None
) -> Outcome:
    """Run a graph once.

    Args:
        graph: The ONNX file.
        inputs: By name; floats are cast to the type that the graph wants.
        provider: The execution provider to use.
        options: Its options.
        sizes: Sizes to fix the free dimensions at, or None to leave them free.

    Raises:
        ConversionError: The provider is not there, or no session can be made with it.
    """
    import time

    import onnxruntime as ort

    settings = ort.SessionOptions()
    settings.log_severity_level = 3
    settings.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    # One run needs no arena and no plan; both would only raise the peak.
    settings.enable_cpu_mem_arena = False
    settings.enable_mem_pattern = False
    skipped = []
    if provider == CPU:
        # Optimising makes a float32 copy of every float16 weight, and packing one more of each: on SD 1.4's
        # U-Net 5.9 GB and 28 s for the one run, instead of 1.9 GB and 6 s.
        settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        settings.add_session_config_entry("session.disable_prepacking", "1")
        skipped = ["ConstantFolding"]
    form = runnable(graph, provider)
    for key, value in form.config.items():
        settings.add_session_config_entry(key, value)
    for name, size in (sizes or {}).items():
        settings.add_free_dimension_override_by_name(name, size)
    providers = [(provider, dict(options))] if provider == CPU else [(provider, dict(options)), (CPU, {})]
    try:
        session = ort.InferenceSession(form.model, settings, providers=providers, disabled_optimizers=skipped)
    except Exception as error:  # ONNX Runtime's exceptions share no other base
        raise ConversionError(
            "session.failed",
            f"{provider} cannot load {graph}: {str(error).strip().splitlines()[0]}",
            "Run: sdsetup doctor",
        ) from error
    if session.get_providers()[0] != provider:
        raise ConversionError(
            "session.fell_back",
            f"{provider} is not usable here: ONNX Runtime fell back to {session.get_providers()[0]}.",
            "Run: sdsetup doctor",
        )
    placement: Counter[str] = Counter()
    fallback: Counter[str] = Counter()
    for group in session.get_provider_graph_assignment_info():
        for node in group.get_nodes():
            placement[group.ep_name] += 1
            if group.ep_name != provider:
                fallback[node.op_type] += 1
    feeds = {
        each.name: inputs[each.name].astype(np.float16)
        if each.type == "tensor(float16)"
        else inputs[each.name]
        for each in session.get_inputs()
    }
    began = time.perf_counter()
    results = session.run(None, feeds)
    seconds = time.perf_counter() - began
    return Outcome(
        outputs={
            each.name: value if value.dtype == np.bool_ else value.astype(np.float32)
            for each, value in zip(session.get_outputs(), results, strict=True)
        },
        placement=dict(placement),
        fallback=dict(fallback),
        seconds=seconds,
    )

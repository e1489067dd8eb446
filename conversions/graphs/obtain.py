"""The graphs of a conversion: those at hand, and the others traced side by side."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import onnx_ir as ir
import psutil

from conversions import graphs
from conversions.checkpoint.folder import Checkpoint, component_tensors
from conversions.errors import ConversionError
from conversions.events import Finished, Listener, Started
from conversions.family import Submodel
from conversions.graphs.trace import Weights
from conversions.isolated_process import isolated_process

_TRACING_NEEDS = ("torch", "diffusers", "transformers")
# Peak memory of a process that traces, measured on SDXL's U-Net.
_TRACER_BYTES = 2 << 30
# Far more than the largest published model takes on a slow machine: what is not done then never will be.
_TRACE_SECONDS = 1800.0


def obtain(
    submodels: Sequence[Submodel],
    checkpoint: Checkpoint,
    cache: Path | None,
    retrace: bool,
    listener: Listener,
) -> dict[str, ir.Model]:
    """Find the graphs of all submodels; those that are not at hand are traced side by side.

    Args:
        submodels: What graphs are wanted of.
        checkpoint: Where their configurations are.
        cache: Folder of this user's traced graphs; None keeps none.
        retrace: Whether graphs at hand are traced anew.
        listener: Told of the progress.

    Returns:
        A graph without weights for each submodel, by name.

    Raises:
        ConversionError: ``graph.needs_pytorch``: a graph has to be traced, and what that needs is not
            installed.
    """
    found = {}
    missing = []
    for submodel in submodels:
        config = checkpoint.config_of(submodel)
        model = None if retrace else graphs.find(submodel.kind, config, cache)
        if model is None:
            missing.append((submodel, config))
        else:
            found[submodel.name] = model
    if not missing:
        return found
    demand_tracing([submodel.name for submodel, _ in missing])
    tracers = _tracers(len(missing))
    with isolated_process(
        "tracing", workers=tracers, seconds=_TRACE_SECONDS, memory_bytes=_memory_of_each(tracers)
    ) as processes:
        for submodel, _ in missing:
            listener(Started(task=f"trace {submodel.name}", label=f"{submodel.name}: tracing its graph"))
        traces = [
            processes.submit(graphs.trace_and_pack, submodel.kind, config, _weights_of(checkpoint, submodel))
            for submodel, config in missing
        ]
        for (submodel, config), trace in zip(missing, traces, strict=True):
            packed = trace.result()
            listener(Finished(task=f"trace {submodel.name}"))
            if cache is not None:
                graphs.keep(packed, submodel.kind, config, cache)
            found[submodel.name] = graphs.unpack(packed, submodel.kind, config)
    return found


def demand_obtainable(
    submodels: Sequence[Submodel],
    checkpoint: Checkpoint,
    cache: Path | None,
    retrace: bool,
    listener: Listener,
) -> None:
    """See before a conversion that graphs which have to be traced can be, and fit the checkpoint's weights.

    Args:
        submodels: What graphs are wanted of.
        checkpoint: Its configurations and tensor tables are read.
        cache: Folder of this user's traced graphs; None keeps none.
        retrace: Whether graphs at hand are traced anew.
        listener: Told of the progress.

    Raises:
        ConversionError: ``graph.needs_pytorch``, ``config.untraceable`` or ``weights.shape``.
    """
    missing = [
        each
        for each in submodels
        if retrace or graphs.locate(each.kind, checkpoint.config_of(each), cache) == "to trace"
    ]
    if not missing:
        return
    demand_tracing([each.name for each in missing])
    with isolated_process("reading classes", seconds=_TRACE_SECONDS) as process:
        listener(Started(task="classes", label="comparing weights with the classes that will be traced"))
        for each in {submodel.component: submodel for submodel in missing}.values():
            config = checkpoint.config_of(each)
            process.call(graphs.demand_weights, each.kind, config, _weights_of(checkpoint, each))
        listener(Finished(task="classes"))


def lacking_for_tracing() -> tuple[str, ...]:
    """Name the Python packages that tracing a graph needs and that are not installed."""
    return tuple(name for name in _TRACING_NEEDS if find_spec(name) is None)


def demand_tracing(to_trace: Sequence[str]) -> None:
    """See that what tracing needs is installed, if anything has to be traced.

    Args:
        to_trace: The submodels whose graphs have to be traced.

    Raises:
        ConversionError: ``graph.needs_pytorch``.
    """
    if to_trace and (lacking := lacking_for_tracing()):
        graphs_of = f"graph{'s' if len(to_trace) > 1 else ''} of {_listed(to_trace)}"
        raise ConversionError(
            "graph.needs_pytorch",
            f"The {graphs_of} must be traced, which takes Python packages that are not installed: "
            f"{_listed(lacking)}.",
        )


def _listed(names: Sequence[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def _weights_of(checkpoint: Checkpoint, submodel: Submodel) -> Weights:
    component = checkpoint.components[submodel.component]
    return Weights(component=component.name, tensors=component_tensors(checkpoint.storage, component))


def _tracers(wanted: int) -> int:
    """Say how many submodels are traced at once: as many as processors and free memory allow."""
    by_memory = int(psutil.virtual_memory().available // _TRACER_BYTES)
    return max(1, min(wanted, os.cpu_count() or 1, by_memory))


def _memory_of_each(tracers: int) -> int:
    """Say how much memory one tracer may take: its part of what is free, and never less than a large one."""
    return max(2 * _TRACER_BYTES, int(psutil.virtual_memory().available * 0.9) // tracers)

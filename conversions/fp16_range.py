"""Which layers leave float16's range: found from the activations of a float32 run, before a picture is black.

In real life these are the last blocks of SDXL's VAE decoder and attention in SD 2.1's U-Net.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from conversions.passes.expand_group_norm import expand_group_norm
from conversions.passes.widen import widen

LARGEST_FP16 = 65504.0
"""Source: IEEE 754-2019, binary16."""

HEADROOM = 2.0
"""Other prompts and seeds give larger activations than the measured ones: what comes this close is kept."""

_PREFIX = "largest magnitude of "


@dataclass(frozen=True, kw_only=True)
class Overflowing:
    """A node that float16 may not hold.

    Attributes:
        node: Its name.
        operator: Its operator.
        largest: Largest magnitude among its outputs, or among the inputs that make it unsafe.
        reason: Why it is kept in float32, for the manifest.
    """

    node: str
    operator: str
    largest: float
    reason: str


def measure_ranges(graph: Path, inputs: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, float]:
    """Run a graph in float32 on the CPU and return the largest magnitude of every value.

    Args:
        graph: The ONNX file of a submodel, float16 or float32, with its weights.
        inputs: Realistic inputs by name.

    Returns:
        Largest magnitude by value name; infinity and NaN stay what they are.
    """
    import onnxruntime as ort

    model = ir.load(graph)
    names = [output.name for node in model.graph for output in node.outputs]
    expand_group_norm(model)
    widen(model)
    _watch(model, [str(name) for name in names])
    options = ort.SessionOptions()
    options.log_severity_level = 3
    # Source: onnxruntime_session_options_config_keys.h, for models that are loaded from memory.
    options.add_session_config_entry(
        "session.model_external_initializers_file_folder_path", str(graph.parent)
    )
    session = ort.InferenceSession(
        ir.to_proto(model).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    watched = [value.name for value in session.get_outputs() if value.name.startswith(_PREFIX)]
    feeds = {
        value.name: inputs[value.name].astype(np.float32)
        if value.type == "tensor(float)"
        else inputs[value.name]
        for value in session.get_inputs()
    }
    results = session.run(watched, feeds)
    return {name.removeprefix(_PREFIX): float(result) for name, result in zip(watched, results, strict=True)}


def find_overflowing(model: ir.Model, ranges: Mapping[str, float]) -> tuple[Overflowing, ...]:
    """Choose the nodes that must stay in float32.

    Rules:
        1. A node stays whose output comes within ``HEADROOM`` of float16's largest number.
        2. A node that reads such an output stays too, or the value would be cast to float16 between them.

    Args:
        model: The graph before it was made float16; names are those of ``ranges``.
        ranges: As :func:`measure_ranges` gives them.
    """
    limit = LARGEST_FP16 / HEADROOM
    found: dict[str, Overflowing] = {}
    for node in model.graph:
        made = max((_size(ranges.get(str(output.name), 0.0)) for output in node.outputs), default=0.0)
        read = max(
            (_size(ranges.get(str(value.name), 0.0)) for value in node.inputs if value is not None),
            default=0.0,
        )
        if made > limit:
            reason = f"reaches {made:.3g}; float16 ends at {LARGEST_FP16:.0f}"
        elif read > limit:
            reason = f"reads values up to {read:.3g}; float16 ends at {LARGEST_FP16:.0f}"
        else:
            continue
        name = str(node.name)
        found[name] = Overflowing(node=name, operator=node.op_type, largest=max(made, read), reason=reason)
    return tuple(found.values())


def _size(largest: float) -> float:
    return float("inf") if np.isnan(largest) else largest


def _watch(model: ir.Model, names: list[str]) -> None:
    """Add an output for the largest magnitude of each float value."""
    graph = model.graph
    values = {value.name: value for node in graph for value in node.outputs}
    for name in names:
        value = values.get(name)
        producer = value.producer() if value is not None else None
        if value is None or producer is None or producer.op_type in _NO_FLOATS:
            continue
        if value.dtype not in (None, ir.DataType.FLOAT):
            continue
        magnitude = ir.node("Abs", [value], name=f"{name}/abs")
        magnitude.outputs[0].name = magnitude.name
        largest = ir.node("ReduceMax", [magnitude.outputs[0]], {"keepdims": 0}, name=f"{name}/largest")
        output = largest.outputs[0]
        output.name, output.type = f"{_PREFIX}{name}", ir.TensorType(ir.DataType.FLOAT)
        output.shape = ir.Shape([])
        graph.extend([magnitude, largest])
        graph.outputs.append(output)


_NO_FLOATS = frozenset({"Shape", "Size", "ArgMax", "Equal", "Greater", "Less", "Not", "Cast", "Constant"})
"""Operators whose results are no floats, or floats that were seen before."""

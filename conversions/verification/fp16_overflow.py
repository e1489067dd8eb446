"""Which layers leave float16's range: found from the activations of a float32 run, before an image is black.

In real life these are the last blocks of SDXL's VAE decoder and attention in SD 2.1's U-Net.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from conversions.passes.expand_group_norm import expand_group_norm
from conversions.passes.rewiring import NodeWriter
from conversions.passes.upcast_to_fp32 import upcast_to_fp32
from conversions.shape_inference import infer_shapes

LARGEST_FP16 = 65504.0
"""Source: IEEE 754-2019, binary16."""

HEADROOM = 2.0
"""Other prompts and seeds give larger activations than the measured ones: what comes this close is kept."""

_PREFIX = "largest magnitude of "
_SCORES = "scores of "


@dataclass(frozen=True, kw_only=True)
class OverflowingNode:
    """A node that float16 may not hold.

    Attributes:
        node: Its name.
        layer: The layer of the checkpoint that its numbers come from: ``decoder.conv_in`` of
            ``decoder.conv_in.weight``.
        operator: Its operator.
        largest: Largest magnitude among its outputs, or among the inputs that make it unsafe.
        reason: Why it is kept in float32, for the manifest.
    """

    node: str
    layer: str
    operator: str
    largest: float
    reason: str


def leaves_range(largest: float) -> bool:
    """Say whether a magnitude is more than float16 is trusted with; NaN is."""
    return not largest <= LARGEST_FP16 / HEADROOM


def measure_ranges(graph: Path, inputs: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, float]:
    """Run a graph in float32 on the CPU and return the largest magnitude of every value.

    Of an attention the scores are measured too, before they are scaled: a kernel may scale them late, and
    those are what overflows in SD 2.1. Source: the remark on float32 in its ``CrossAttention.forward``.

    Args:
        graph: The ONNX file of a submodel, float16 or float32, with its weights.
        inputs: Realistic inputs by name.

    Returns:
        Largest magnitude by value name, and by ``"scores of NODE"``; infinity and NaN stay what they are.
    """
    import onnxruntime as ort

    model = ir.load(graph)
    names = [str(output.name) for node in model.graph for output in node.outputs]
    expand_group_norm(model)
    infer_shapes(model)
    upcast_to_fp32(model)
    values = {str(value.name): value for node in model.graph for value in node.outputs}
    _watch(model.graph, {name: values[name] for name in names if name in values} | _write_scores(model.graph))
    options = ort.SessionOptions()
    options.log_severity_level = 3
    # As it is, each upcast weight lives while it is read; folded, all of them would lie in memory at once.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.enable_cpu_mem_arena = False
    # Source: onnxruntime_session_options_config_keys.h, for models that are loaded from memory.
    options.add_session_config_entry(
        "session.model_external_initializers_file_folder_path", str(graph.parent)
    )
    session = ort.InferenceSession(
        ir.to_proto(model).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    wanted = [value.name for value in session.get_outputs() if value.name.startswith(_PREFIX)]
    feeds = {
        value.name: inputs[value.name].astype(np.float32)
        if value.type == "tensor(float)"
        else inputs[value.name]
        for value in session.get_inputs()
    }
    results = session.run(wanted, feeds)
    return {name.removeprefix(_PREFIX): float(result) for name, result in zip(wanted, results, strict=True)}


def find_overflowing(model: ir.Model, ranges: Mapping[str, float]) -> tuple[OverflowingNode, ...]:
    """Choose the nodes that must stay in float32.

    Rules:
        1. A node stays whose output comes within ``HEADROOM`` of float16's largest number.
        2. A node that reads such an output stays too, or the value would be cast to float16 between them.
        3. An attention stays whose scores come that close.

    Args:
        model: The graph before it was made float16; names are those of ``ranges``.
        ranges: As :func:`measure_ranges` gives them.
    """
    found: list[OverflowingNode] = []
    for node in model.graph:
        made = max((_size(ranges.get(str(output.name), 0.0)) for output in node.outputs), default=0.0)
        read = max(
            (_size(ranges.get(str(value.name), 0.0)) for value in node.inputs if value is not None),
            default=0.0,
        )
        scores = _size(ranges.get(f"{_SCORES}{node.name}", 0.0))
        for largest, what in ((made, "reaches"), (scores, "has scores up to"), (read, "reads values up to")):
            if leaves_range(largest):
                found.append(
                    OverflowingNode(
                        node=str(node.name),
                        layer=_layer(node, ranges),
                        operator=node.op_type,
                        largest=max(made, scores, read),
                        reason=f"{what} {largest:.3g}; float16 ends at {LARGEST_FP16:.0f}",
                    )
                )
                break
    return tuple(found)


def _layer(node: ir.Node, ranges: Mapping[str, float]) -> str:
    """Go back along the largest values to a node with weights and name it after them."""
    while True:
        for value in node.inputs:
            if value is not None and value.is_initializer() and "." in str(value.name):
                return str(value.name).rpartition(".")[0]
        producers = [
            (_size(ranges.get(str(value.name), 0.0)), producer)
            for value in node.inputs
            if value is not None and (producer := value.producer()) is not None
        ]
        if not producers:
            return str(node.name)
        node = max(producers, key=itemgetter(0))[1]


def _size(largest: float) -> float:
    return float("inf") if np.isnan(largest) else largest


def _watch(graph: ir.Graph, values: Mapping[str, ir.Value]) -> None:
    """Add an output for the largest magnitude of each float value."""
    for name, value in values.items():
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


def _write_scores(graph: ir.Graph) -> dict[str, ir.Value]:
    """Write the unscaled scores of every attention beside it: query times key, for each head."""
    writer = NodeWriter(graph, "scores")
    scores = {}
    for node in [node for node in graph if node.op_type == "MultiHeadAttention"]:
        query, key = node.inputs[:2]
        assert query is not None
        assert key is not None
        writer.start(node)
        split = writer.constant([0, 0, int(node.attributes.get_int("num_heads", 0) or 0), -1])
        queries = writer.add("Transpose", writer.add("Reshape", query, split), perm=[0, 2, 1, 3])
        keys = writer.add("Transpose", writer.add("Reshape", key, split), perm=[0, 2, 3, 1])
        value = writer.add("MatMul", queries, keys)
        value.dtype = ir.DataType.FLOAT
        scores[f"{_SCORES}{node.name}"] = value
    return scores

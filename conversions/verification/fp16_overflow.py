"""Which layers leave float16's range: found from the activations of a float32 run, before an image is black.

In real life these are the last blocks of SDXL's VAE decoder and attention in SD 2.1's U-Net. On DirectML a
norm leaves it earlier than its input does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import onnx_ir as ir

from conversions.passes.expand_group_norm import expand_group_norm
from conversions.passes.rewiring import NodeWriter
from conversions.passes.upcast_to_fp32 import upcast_to_fp32
from conversions.providers.execution_order import widen_late
from conversions.shape_inference import infer_shapes

LARGEST_FP16 = 65504.0
"""Source: IEEE 754-2019, binary16."""

LARGEST_DEVIATION = math.sqrt(LARGEST_FP16)
"""Standard deviation, about 256, whose square is float16's largest number.

DirectML keeps the variance of a float16 norm's input in float16 and lets it stop there: what the norm then
gives is too large, without a NaN. Source: ``tests/windows/test_directml_norms.py``, which asks DirectML.dll.
"""

HEADROOM = 2.0
"""Other prompts and seeds give larger activations than the measured ones: what comes this close is kept."""

_PREFIX = "largest magnitude of "
_SCORES = "scores of "
_DEVIATION = "deviation of "
_ENDS = f"float16 ends at {LARGEST_FP16:.0f}"
_SQUARED = f"the square of that would be a float16, which ends at {LARGEST_FP16:.0f}"

_OF_SQUARES = frozenset({"RMSNormalization", "SimplifiedLayerNormalization"})
_OF_LAYERS = _OF_SQUARES | {"LayerNormalization"}
_NORMS = _OF_LAYERS | {"GroupNorm", "GroupNormalization", "InstanceNormalization"}

# Attention scores are looked at for this many queries at a time, so that they take little memory.
_QUERIES = 1024


class ActivationRange:
    """How far the numbers reach while PyTorch runs: ``with ActivationRange() as activations: module(...)``.

    Attributes:
        largest: The largest magnitude that any function of torch gave; infinite once a NaN was met. Attention
            counts with its scores before they are scaled: a kernel may scale the product after it is made.
        largest_deviation: The largest standard deviation among the values that a norm normalises together
            (root mean square for an RMS norm); infinite once it was NaN.
    """

    def __init__(self) -> None:
        self.largest = 0.0
        self.largest_deviation = 0.0
        self._mode: Any = None

    def __enter__(self) -> Self:
        self._mode = _function_mode(self)
        self._mode.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._mode.__exit__(kind, error, trace)


def _function_mode(seen: ActivationRange) -> Any:
    """Make the mode that shows every call of a torch function, with its result, to an ``ActivationRange``."""
    import torch
    from torch.nn import functional
    from torch.overrides import TorchFunctionMode

    def size_of(tensor: torch.Tensor) -> float:
        if not tensor.is_floating_point() or not tensor.numel():
            return 0.0
        low, high = tensor.aminmax()
        return _size(float(torch.maximum(-low, high)))

    def look_at_scores(query: torch.Tensor, key: torch.Tensor) -> None:
        for queries in query.split(_QUERIES, dim=-2):
            seen.largest = max(seen.largest, size_of(queries @ key.transpose(-2, -1)))

    def look_at_rows(rows: torch.Tensor, *, centred: bool = True) -> None:
        variance = rows.var(-1, correction=0) if centred else rows.square().mean(-1)
        seen.largest_deviation = max(seen.largest_deviation, math.sqrt(size_of(variance)))

    # Functions that are looked at before they run: the names of their first parameters, and the look.
    looks: dict[Callable[..., Any], tuple[tuple[str, ...], Callable[..., None]]] = {
        functional.scaled_dot_product_attention: (("query", "key"), look_at_scores),
        functional.layer_norm: (
            ("input", "normalized_shape"),
            lambda values, shape: look_at_rows(values.flatten(-len(shape))),
        ),
        functional.rms_norm: (
            ("input", "normalized_shape"),
            lambda values, shape: look_at_rows(values.flatten(-len(shape)), centred=False),
        ),
        functional.group_norm: (
            ("input", "num_groups"),
            lambda values, groups: look_at_rows(values.reshape(len(values), groups, -1)),
        ),
        functional.instance_norm: (("input",), lambda values: look_at_rows(values.flatten(2))),
    }

    class Mode(TorchFunctionMode):
        def __torch_function__(
            self,
            func: Callable[..., Any],
            types: Iterable[type],
            args: tuple[Any, ...] = (),
            kwargs: Mapping[str, Any] | None = None,
        ) -> Any:
            named = kwargs or {}
            if func in looks:
                names, look = looks[func]
                given = {**dict(zip(names, args, strict=False)), **named}
                look(*(given[name] for name in names))
            result = func(*args, **named)
            if isinstance(result, torch.Tensor):
                seen.largest = max(seen.largest, size_of(result))
            return result

    return Mode()


@dataclass(frozen=True, kw_only=True)
class OverflowingNode:
    """A node that float16 may not hold.

    Attributes:
        node: Its name.
        layer: The layer of the checkpoint that its numbers come from: ``decoder.conv_in`` of
            ``decoder.conv_in.weight``.
        operator: Its operator.
        largest: Largest magnitude among its outputs, or among the inputs that make it unsafe; of a norm the
            largest standard deviation of its input. Infinite where it was not measured.
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


def deviates_too_far(deviation: float) -> bool:
    """Say whether a standard deviation is more than a norm is trusted with that squares it in float16."""
    return not deviation <= LARGEST_DEVIATION / HEADROOM


def any_overflow(ranges: Mapping[str, float], *, fp16_variance: bool) -> bool:
    """Say whether anything that :func:`measure_ranges` measured is more than float16 is trusted with.

    Args:
        ranges: As it gives them.
        fp16_variance: Whether the target keeps the variance of a norm's input in float16.
    """
    return any(
        fp16_variance and deviates_too_far(largest) if name.startswith(_DEVIATION) else leaves_range(largest)
        for name, largest in ranges.items()
    )


def measure_ranges(graph: Path, inputs: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, float]:
    """Run a graph in float32 on the CPU and return the largest magnitude of every value.

    Of an attention the scores are measured too, before they are scaled: a kernel may scale them late, and
    those are what overflows in SD 2.1. Source: the remark on float32 in its ``CrossAttention.forward``. Of a
    norm the standard deviation of what it normalises together is measured (root mean square, of an RMS norm).

    Args:
        graph: The ONNX file of a submodel, float16 or float32, with its weights.
        inputs: Realistic inputs by name.

    Returns:
        Largest magnitude by value name, and by ``"scores of NODE"``; largest standard deviation by
        ``"deviation of NODE"``. Infinity and NaN stay what they are.
    """
    import onnxruntime as ort

    model = ir.load(graph)
    names = [str(output.name) for node in model.graph for output in node.outputs]
    infer_shapes(model)
    deviations = _write_deviations(model.graph)
    expand_group_norm(model)
    infer_shapes(model)
    upcast_to_fp32(model)
    values = {str(value.name): value for node in model.graph for value in node.outputs}
    watched = {name: values[name] for name in names if name in values}
    _watch(model.graph, watched | deviations | _write_scores(model.graph))
    options = ort.SessionOptions()
    options.log_severity_level = 3
    # As it is, each upcast weight lives while it is read; folded, all of them would lie in memory at once.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.enable_cpu_mem_arena = False
    widen_late(options)
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


def find_overflowing(
    model: ir.Model, ranges: Mapping[str, float], *, fp16_variance: bool = False
) -> tuple[OverflowingNode, ...]:
    """Choose the nodes that must stay in float32.

    Rules:
        1. A node stays whose output comes within ``HEADROOM`` of float16's largest number.
        2. A node that reads such an output stays too, or the value would be cast to float16 between them.
        3. An attention stays whose scores come that close.
        4. A norm stays whose input's standard deviation comes within ``HEADROOM`` of ``LARGEST_DEVIATION``,
           on a target that keeps the variance in float16.

    Args:
        model: The graph before it was made float16; names are those of ``ranges``.
        ranges: As :func:`measure_ranges` gives them.
        fp16_variance: Whether the target keeps the variance of a norm's input in float16.
    """
    found = []
    for node in model.graph:
        largest, reason = _why_kept(node, ranges, fp16_variance=fp16_variance)
        if reason:
            found.append(_overflowing(node, ranges, largest, reason))
    return tuple(found)


def find_norms(model: ir.Model) -> tuple[OverflowingNode, ...]:
    """Choose every norm, for a target that keeps the variance in float16 and a graph that was not measured.

    Args:
        model: The graph before it was made float16.
    """
    reason = f"normalises values whose standard deviation was not measured; {_SQUARED}"
    return tuple(_overflowing(node, {}, math.inf, reason) for node in model.graph if node.op_type in _NORMS)


def _why_kept(node: ir.Node, ranges: Mapping[str, float], *, fp16_variance: bool) -> tuple[float, str]:
    """Return the magnitude that makes a node unsafe in float16, and the reason; empty where it is safe."""

    def largest_of(values: Iterable[ir.Value | None]) -> float:
        sizes = (_size(ranges.get(str(value.name), 0.0)) for value in values if value is not None)
        return max(sizes, default=0.0)

    made, read = largest_of(node.outputs), largest_of(node.inputs)
    scores = _size(ranges.get(f"{_SCORES}{node.name}", 0.0))
    for largest, what in ((made, "reaches"), (scores, "has scores up to"), (read, "reads values up to")):
        if leaves_range(largest):
            return max(made, scores, read), f"{what} {largest:.3g}; {_ENDS}"
    deviation = _size(ranges.get(f"{_DEVIATION}{node.name}", 0.0))
    if fp16_variance and deviates_too_far(deviation):
        return deviation, f"normalises values of a standard deviation up to {deviation:.3g}; {_SQUARED}"
    return 0.0, ""


def _overflowing(node: ir.Node, ranges: Mapping[str, float], largest: float, reason: str) -> OverflowingNode:
    return OverflowingNode(
        node=str(node.name),
        layer=_layer(node, ranges),
        operator=node.op_type,
        largest=largest,
        reason=reason,
    )


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
    return math.inf if math.isnan(largest) else largest


def _watch(graph: ir.Graph, values: Mapping[str, ir.Value]) -> None:
    """Add an output for the largest magnitude of each float value, right where it is made."""
    for name, value in values.items():
        if value.dtype not in (None, ir.DataType.FLOAT):
            continue
        magnitude = ir.node("Abs", [value], name=f"{name}/abs")
        magnitude.outputs[0].name = magnitude.name
        largest = ir.node("ReduceMax", [magnitude.outputs[0]], {"keepdims": 0}, name=f"{name}/largest")
        output = largest.outputs[0]
        output.name, output.type = f"{_PREFIX}{name}", ir.TensorType(ir.DataType.FLOAT)
        output.shape = ir.Shape([])
        producer = value.producer()
        assert producer is not None
        graph.insert_after(producer, [magnitude, largest])
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


def _write_deviations(graph: ir.Graph) -> dict[str, ir.Value]:
    """Write before every norm the standard deviation of what it normalises together."""
    writer = NodeWriter(graph, "deviation")
    deviations = {}
    for node in [node for node in graph if node.op_type in _NORMS]:
        rows = node.inputs[0]
        assert rows is not None
        name = f"{_DEVIATION}{node.name}"
        writer.start(node, name)
        if node.op_type in _OF_LAYERS:
            axis = int(node.attributes.get_int("axis", -1) or 0)
            axes = list(range(axis, 0 if axis < 0 else len(rows.shape or ())))
        else:
            groups = node.attributes.get_int("groups", node.attributes.get_int("num_groups", 0))
            rows, axes = writer.add("Reshape", rows, writer.constant([0, groups, -1])), [-1]
        along = writer.constant(axes)
        if node.op_type not in _OF_SQUARES:
            rows = writer.add("Sub", rows, writer.add("ReduceMean", rows, along))
        squares = writer.add("Mul", rows, rows)
        deviations[name] = writer.add("Sqrt", writer.add("ReduceMean", squares, along))
    return deviations

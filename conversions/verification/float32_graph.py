"""Evaluate a submodel's graph in float32 without PyTorch, as a reference where PyTorch is not installed.

How independent of a package this is: the graph is read anew, as it was traced, without the passes of any
target or precision; attention is written out, so no fused kernel of ONNX Runtime takes part; graph
optimisation is off; weights are read from the checkpoint by the safetensors library where it can, and never
from the package. What it cannot find is an error in the trace itself or in this project's tensor names, which
it shares with the package: PyTorch finds those, and the tests ask it for every kind of graph that ships.

Runs in a child process.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx_ir as ir

from conversions import graphs
from conversions.errors import ConversionError
from conversions.graph_kind import Config, GraphKind
from conversions.passes.expand_attention import expand_attention
from conversions.passes.rewiring import NodeWriter
from conversions.passes.simplify import TRANSPOSED
from conversions.providers.execution_order import widen_late
from conversions.verification.reference import Arrays, ExpressionWeights, Reference
from conversions.weights.binding import match_names
from conversions.weights.expression import Expression, Stored, evaluate_range
from conversions.weights.quantize import BITS, quantize
from conversions.weights.read_numbers import read_numbers

Numbers = np.ndarray[Any, np.dtype[Any]]
ReadWeight = Callable[[Expression], Numbers]


def evaluate(
    kind: GraphKind,
    config: Config,
    weights: ExpressionWeights,
    inputs: Arrays,
    quantized: Mapping[str, str] = MappingProxyType({}),
    cache: Path | None = None,
) -> Reference:
    """Evaluate a submodel in float32 with ONNX Runtime's CPU provider.

    Args:
        kind: Of the submodel.
        config: The component's configuration.
        weights: The component's weights.
        inputs: As ``make_inputs`` gives them.
        quantized: Precisions of the weights that the package holds quantised, by name.
        cache: Folder of this user's traced graphs; None for no such folder.

    Returns:
        The outputs. Nothing is known of the activations on the way, so their largest is infinite: whoever
        asks whether they leave float16's range has to measure them.

    Raises:
        ConversionError: ``verify.no_graph``: the graph is not at hand. ``weights.missing``: there is nothing
            for a weight.
    """
    model = graphs.find(kind, config, cache)
    if model is None:
        raise ConversionError(
            "verify.no_graph",
            f"The graph of {kind.class_name} is not at hand, so nothing can be compared without PyTorch.",
        )
    expand_attention(model)
    values = _weights(model)
    named = _match(kind, values, weights)
    arrays: dict[str, Numbers] = {}
    with ExitStack() as opened:
        read = _reader(weights.paths, opened)
        for name, value in values.items():
            array = _as_wanted(read(named[name]), value)
            factor = kind.scale_of(name)
            if factor != 1:  # a power of two, which float32 holds without rounding
                array = array.astype(np.float32) * np.float32(factor)
            arrays[name] = array.astype(np.float32) if name in quantized else array
    _weights_as_inputs(model, values, arrays)
    session = _session(model)
    outputs, unquantized = _run(session, {**inputs, **arrays}, kind, config), None
    if quantized:
        for name, precision in quantized.items():  # in place: both forms of all weights may not fit
            arrays[name] = _restored(arrays[name], values[name], precision)
        unquantized, outputs = outputs, _run(session, {**inputs, **arrays}, kind, config)
    return Reference(
        outputs=outputs,
        unquantized=unquantized,
        largest=math.inf,
        largest_deviation=math.inf,
    )


def _match(
    kind: GraphKind, wanted: Mapping[str, ir.Value], weights: ExpressionWeights
) -> Mapping[str, Expression]:
    named = match_names(kind.id, weights.tensors, wanted.keys(), kind.renames)
    missing = sorted(set(wanted) - set(named))
    if missing:
        raise ConversionError(
            "weights.missing",
            f"There is no tensor for {missing[0]} of {kind.id}.",
            "The checkpoint lacks a part; download it again.",
        )
    return named


def _weights(model: ir.Model) -> dict[str, ir.Value]:
    return {name: value for name, value in model.graph.initializers.items() if value.const_value is None}


def _reader(paths: Mapping[str, Path], opened: ExitStack) -> ReadWeight:
    """Return what reads whole weights: the safetensors library where it can, this project's reader else."""
    from safetensors import safe_open

    by_expression = read_numbers(paths)
    files: dict[str, Any] = {}

    def read(weight: Expression) -> Numbers:
        if isinstance(weight, Stored) and weight.dtype in {"F16", "F32"}:
            tensor = weight.tensor
            path = paths[tensor.file]
            if path.suffix == ".safetensors":
                if tensor.file not in files:
                    files[tensor.file] = opened.enter_context(safe_open(path, framework="numpy"))
                file = files[tensor.file]
                # What is part of a stored tensor has its name and another shape.
                if tuple(file.get_slice(tensor.name).get_shape()) == weight.shape:
                    return np.asarray(file.get_tensor(tensor.name))
        numbers = evaluate_range(weight, 0, weight.size, by_expression)
        kept = numbers.dtype if numbers.dtype == np.float16 else np.float32
        return np.asarray(numbers, kept).reshape(weight.shape)

    return read


def _as_wanted(stored: Numbers, value: ir.Value) -> Numbers:
    """Give a stored weight the order and the shape that the graph wants."""
    assert value.shape is not None
    ordered = stored.T if TRANSPOSED in value.metadata_props else stored
    return np.ascontiguousarray(ordered).reshape(tuple(value.shape.numpy()))


def _restored(weight: Numbers, value: ir.Value, precision: str) -> Numbers:
    """Round a weight to what its quantised form stands for; rows are as the checkpoint stores them."""
    turned = TRANSPOSED in value.metadata_props
    matrix = weight.T if turned else weight
    found = quantize(np.asarray(matrix, np.float32), BITS[precision], np.float16).restored()
    return np.ascontiguousarray(found.T if turned else found)


def _weights_as_inputs(
    model: ir.Model, values: Mapping[str, ir.Value], arrays: Mapping[str, Numbers]
) -> None:
    """Make weights inputs of the graph, which copies none; float16 ones are cast where first read."""
    writer = NodeWriter(model.graph, "float32")
    order = {id(node): index for index, node in enumerate(model.graph)}
    for name, value in values.items():
        del model.graph.initializers[name]
        model.graph.inputs.append(value)
        if arrays[name].dtype != np.float16:
            continue
        uses = list(value.uses())
        value.dtype = ir.DataType.FLOAT16
        writer.start(min((use.node for use in uses), key=lambda node: order[id(node)]), f"{name} in float32")
        cast = writer.add("Cast", value, to=ir.DataType.FLOAT.value)
        cast.dtype, cast.shape = ir.DataType.FLOAT, value.shape
        for use in uses:
            use.node.replace_input_with(use.idx, cast)


def _session(model: ir.Model) -> Any:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.enable_cpu_mem_arena = False
    widen_late(options)
    content = ir.serde.serialize_model(model).SerializeToString()
    return ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def _run(session: Any, feeds: Mapping[str, Numbers], kind: GraphKind, config: Config) -> Arrays:
    taken = {each.name: feeds[each.name] for each in session.get_inputs()}
    names = [spec.name for spec in kind.outputs(config)]
    return dict(zip(names, session.run(names, taken), strict=True))

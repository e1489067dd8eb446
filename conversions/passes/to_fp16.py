"""Pass: a float32 graph becomes a float16 one, except where float32 is needed."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx_ir as ir

_FLOAT = ir.DataType.FLOAT
_HALF = ir.DataType.FLOAT16

# A constant beyond this becomes the largest float16 instead of infinity (only masks are that large).
_LARGEST = float(np.finfo(np.float16).max)


def to_fp16(model: ir.Model, *, keep: Collection[str] = (), fixed: Collection[str] = ()) -> None:
    """Turn a float32 model into a float16 one, in place; the weights may have no values yet.

    Rules:
        1. Weights and float graph inputs, but those named in ``fixed``, become float16.
        2. A node computes in float16 when at least one of its float inputs is float16; what depends on
           float32 inputs and constants alone (the timestep's sinusoid) stays float32, as in PyTorch.
        3. The other float inputs of such a node are cast: constants here, values by one Cast node each.
        4. Nodes named in ``keep`` compute in float32, between Casts, and their weights stay float32.
        5. Float graph outputs are float16.

    Args:
        model: The model, float32 throughout.
        keep: Names of nodes that need float32's range.
        fixed: Graph inputs that stay float32 whatever the precision.
    """
    _Halving(model, frozenset(keep), frozenset(fixed)).run()


class _Halving:
    def __init__(self, model: ir.Model, keep: frozenset[str], fixed: frozenset[str]) -> None:
        self.graph = model.graph
        self.keep = keep
        self.fixed = fixed
        self.types: dict[ir.Value, ir.DataType] = {}
        self.casts: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}

    def run(self) -> None:
        for value in self.graph.inputs:
            if value.dtype is not None:
                self.types[value] = (
                    _HALF if self._is_float(value) and value.name not in self.fixed else value.dtype
                )
        for value in self.graph.initializers.values():
            if value.dtype is not None:
                is_weight = self._is_float(value) and value.const_value is None
                self.types[value] = _HALF if is_weight and not self._only_for_kept(value) else value.dtype
        for node in list(self.graph):
            self._visit(node)
        for value, dtype in self.types.items():
            if dtype is _HALF and value.dtype is _FLOAT:
                value.dtype = _HALF
        for index, value in enumerate(self.graph.outputs):
            if value.dtype is _FLOAT and self.types.get(value) is not _HALF:
                self._cast_output(index, value)
            elif value.dtype is _FLOAT:
                value.dtype = _HALF

    @staticmethod
    def _is_float(value: ir.Value) -> bool:
        return value.dtype is _FLOAT

    def _only_for_kept(self, weight: ir.Value) -> bool:
        return bool(self.keep) and all(use.node.name in self.keep for use in weight.uses())

    def _visit(self, node: ir.Node) -> None:
        """Type a node's outputs and make its float inputs agree. Nodes come in topological order."""
        if node.op_type == "Cast":
            target = ir.DataType(node.attributes["to"].as_int())
            self._set_outputs(node, target)
            return
        floats = [
            value for value in node.inputs if value is not None and self._type(value) in (_FLOAT, _HALF)
        ]
        halves = [value for value in floats if self._type(value) is _HALF]
        wanted = _HALF if halves and node.name not in self.keep else _FLOAT
        for index, value in enumerate(node.inputs):
            if value in floats and self._type(value) is not wanted and not _must_stay_float32(node, index):
                assert value is not None
                node.replace_input_with(index, self._cast(value, wanted, node))
        if floats:
            self._set_outputs(node, wanted)

    def _type(self, value: ir.Value) -> ir.DataType | None:
        return self.types.get(value, value.dtype)

    def _set_outputs(self, node: ir.Node, dtype: ir.DataType) -> None:
        if node.op_type in _NOT_FLOAT_RESULTS:
            return
        for output in node.outputs:
            self.types[output] = dtype

    def _cast(self, value: ir.Value, wanted: ir.DataType, reader: ir.Node) -> ir.Value:
        known = self.casts.get((value, wanted))
        if known is not None:
            return known
        if value.const_value is not None:
            numbers = np.clip(value.const_value.numpy(), -_LARGEST, _LARGEST).astype(wanted.numpy())
            result = ir.Value(
                name=f"{value.name}_{wanted.name.lower()}",
                shape=ir.Shape(numbers.shape),
                type=ir.TensorType(wanted),
                const_value=ir.tensor(numbers, name=f"{value.name}_{wanted.name.lower()}"),
            )
            self.graph.register_initializer(result)
        else:
            cast = ir.node("Cast", [value], {"to": wanted}, name=f"{value.name}_to_{wanted.name.lower()}")
            result = cast.outputs[0]
            result.name = cast.name
            self.graph.insert_before(reader, cast)
        self.types[result] = wanted
        self.casts[value, wanted] = result
        return result

    def _cast_output(self, index: int, value: ir.Value) -> None:
        name, producer = value.name, value.producer()
        assert producer is not None
        cast = ir.node("Cast", [value], {"to": _HALF}, name=f"{name}_to_float16")
        self.graph.append(cast)
        value.name = f"{name}_float32"
        result = cast.outputs[0]
        result.name, result.shape, result.dtype = name, value.shape, _HALF
        self.graph.outputs[index] = result


# Their results are booleans, integers or shapes whatever their inputs are.
_NOT_FLOAT_RESULTS = frozenset(
    {"Shape", "Size", "Greater", "Less", "Equal", "GreaterOrEqual", "ArgMax", "Not"}
)


def _must_stay_float32(node: ir.Node, index: int) -> bool:
    """Say whether ONNX wants float32 at this input whatever the others are: Resize's roi and scales."""
    return node.op_type == "Resize" and index in (1, 2)

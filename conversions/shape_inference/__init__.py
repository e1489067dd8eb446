"""A graph at fixed sizes: every shape known, every shape computation done, and no weight needed for it.

This is what a session makes of a graph whose free dimensions are overridden, before it divides the graph
among its providers. ONNX Runtime only does it for a model whose weights are there and whose operators have a
CPU kernel; a check must also answer for a graph traced from nothing but a config, and for operators that
only a GPU provider has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx.defs import OpSchema
from onnx.reference import ReferenceEvaluator

from conversions.errors import ConversionError
from conversions.shape_inference.contrib import IN_ONNX_DOMAIN, contrib_shapes

FOLD_LIMIT = 4096
"""Elements up to which a constant is followed through the graph: shapes, axes and small tables."""

# Those that draw numbers, and those whose results are no tensors.
_NEVER_FOLDED = frozenset(
    {
        *("RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike"),
        *("Bernoulli", "Multinomial", "SequenceEmpty", "SequenceConstruct"),
    }
)


def fix_sizes(model: ir.Model, sizes: Mapping[str, int]) -> ir.Model:
    """Give every named dimension its size, then infer all shapes and fold all that became constant.

    Args:
        model: A model in topological order; it is left as it is. Initializers need a type and a shape, not
            data.
        sizes: Size of every named dimension of the inputs, for example ``{"batch": 2, "height": 64}``.

    Returns:
        A copy that shares its tensors with ``model``.

    Raises:
        ConversionError: A dimension has no size, or the graph contradicts itself at these sizes.
    """
    fixed = model.clone()
    for value in fixed.graph.inputs:
        if value.shape is not None:
            value.shape = ir.Shape([_size_of(dim, sizes, value) for dim in value.shape])
    fold_constants(fixed)
    return fixed


def fold_constants(model: ir.Model) -> int:
    """Infer shapes along the graph and replace what small constants and known shapes decide, in place.

    Args:
        model: A model in topological order.

    Returns:
        How many nodes were replaced by initializers.
    """
    walk = _Walk(model)
    for node in list(model.graph):
        walk.fold(node)
    return walk.folded


def infer_shapes(model: ir.Model) -> None:
    """Write types, and shapes as far as they follow, on every value of a graph, in place."""
    walk = _Walk(model)
    for node in model.graph:
        walk.infer(node)


def known_value(value: ir.Value | None) -> np.ndarray[Any, Any] | None:
    """Return the data of a small constant, or None for anything that is computed, large or absent."""
    tensor = value.const_value if value is not None else None
    if tensor is None or isinstance(tensor, ir.ExternalTensor) or tensor.size > FOLD_LIMIT:
        return None
    return np.asarray(tensor.numpy())


def static_shape(value: ir.Value) -> tuple[int, ...] | None:
    """Return a value's shape when every dimension is a number."""
    if value.shape is None or not all(isinstance(dim, int) for dim in value.shape):
        return None
    return tuple(int(dim) for dim in value.shape)  # type: ignore[arg-type]


def attention_scores_shape(attention: ir.Node) -> tuple[int, int, int, int] | None:
    """Return [batch, heads, queries, keys] of a ``com.microsoft.MultiHeadAttention``, when all are known.

    Query and key are [batch, length, heads * size].

    Source: that operator in ONNX Runtime's ContribOperators.md.
    """
    query, key = (static_shape(each) if each is not None else None for each in attention.inputs[:2])
    if query is None or key is None or len(query) != 3 or len(key) != 3:
        return None
    return query[0], int(attention.attributes.get_int("num_heads", 1) or 1), query[1], key[1]


def _size_of(dim: int | ir.SymbolicDim, sizes: Mapping[str, int], value: ir.Value) -> int:
    if isinstance(dim, int):
        return dim
    if dim.value in sizes:
        return sizes[str(dim.value)]
    raise ConversionError(
        "placement.size_missing",
        f"Input '{value.name}' has the free dimension '{dim.value}', and no size was given for it.",
        "Name a size for every free dimension of the graph's inputs.",
    )


class _Walk:
    """One walk over a graph, with the inferred types kept on the values themselves."""

    def __init__(self, model: ir.Model) -> None:
        self.graph = model.graph
        self.opsets = dict(model.opset_imports)
        self.imports = [onnx.helper.make_opsetid(domain, version) for domain, version in self.opsets.items()]
        self.folded = 0

    def fold(self, node: ir.Node) -> None:
        constant = self._constant(node)
        if constant is None:
            self.infer(node)
            constant = self._shape_constant(node)
        if constant is None:
            return
        for output, array in zip(node.outputs, constant, strict=True):
            self._become_initializer(output, array)
        self.graph.remove(node, safe=True)
        self.folded += 1

    def _become_initializer(self, output: ir.Value, array: np.ndarray[Any, Any]) -> None:
        name = output.name
        value = ir.Value(name=name, const_value=ir.tensor(array, name=name))
        value.dtype, value.shape = ir.DataType.from_numpy(array.dtype), ir.Shape(array.shape)
        ir.convenience.replace_all_uses_with(output, value, replace_graph_outputs=True)
        output.name = f"{name}_folded"
        self.graph.initializers[str(name)] = value

    def _constant(self, node: ir.Node) -> Sequence[np.ndarray[Any, Any]] | None:
        """Compute a node whose inputs are all small constants."""
        if node.domain not in ("", "ai.onnx"):
            return None
        inputs = [known_value(value) for value in node.inputs]
        if any(array is None and value is not None for array, value in zip(inputs, node.inputs, strict=True)):
            return None
        if any(isinstance(attr.value, ir.Graph) for attr in node.attributes.values()):
            return None
        if node.op_type in _NEVER_FOLDED:
            return None
        self.infer(node)
        if not all(_fits(output) for output in node.outputs):
            return None
        proto = ir.serde.serialize_node(node)
        feeds = {str(value.name): array for value, array in zip(node.inputs, inputs, strict=True) if value}
        results = ReferenceEvaluator(proto, opsets=self.opsets).run(None, feeds)
        return [np.asarray(result) for result in results]

    def _shape_constant(self, node: ir.Node) -> Sequence[np.ndarray[Any, Any]] | None:
        """Compute Shape and Size of a tensor whose shape is known, and casts to the type a tensor has."""
        if node.op_type not in ("Shape", "Size"):
            return None
        source = node.inputs[0]
        if source is None or source.shape is None:
            return None
        dims = list(source.shape)
        if node.op_type == "Shape":
            start = node.attributes.get_int("start", 0)
            end = node.attributes.get_int("end", len(dims))
            dims = dims[slice(start, end)]
        if not all(isinstance(dim, int) for dim in dims):
            return None
        numbers = np.array(dims, dtype=np.int64)
        return [numbers if node.op_type == "Shape" else np.array(numbers.prod(), dtype=np.int64)]

    def infer(self, node: ir.Node) -> None:
        first = node.inputs[0] if node.inputs else None
        if node.domain == "com.microsoft" or node.op_type in IN_ONNX_DOMAIN:
            for output, shape in zip(node.outputs, contrib_shapes(node), strict=False):
                _set_type(output, first.dtype if first is not None else None, shape)
            return
        version = self.opsets.get(node.domain, self.opsets.get("", 1))
        try:
            schema: OpSchema = onnx.defs.get_schema(node.op_type, version, node.domain)
        except onnx.defs.SchemaError:
            return
        types = {str(value.name): _type_of(value) for value in node.inputs if value is not None}
        data = {
            str(value.name): onnx.numpy_helper.from_array(array)
            for value in node.inputs
            if value is not None and (array := known_value(value)) is not None
        }
        try:
            inferred = onnx.shape_inference.infer_node_outputs(
                schema, ir.serde.serialize_node(node), types, data, opset_imports=self.imports
            )
        except onnx.shape_inference.InferenceError as error:
            raise ConversionError(
                "placement.shape",
                f"Node '{node.name}' ({node.op_type}) has no valid shape at these sizes: {error}",
                "Check that width and height are sizes that this graph can take.",
            ) from error
        for output in node.outputs:
            if output.name in inferred:
                _take_type(output, inferred[str(output.name)])


def _fits(value: ir.Value) -> bool:
    shape = static_shape(value)
    return shape is None or int(np.prod(shape)) <= FOLD_LIMIT


def _type_of(value: ir.Value) -> onnx.TypeProto:
    if value.type is not None and not isinstance(value.type, ir.TensorType):
        return ir.serde.serialize_type(value.type)
    dims = (
        [dim if isinstance(dim, int) else dim.value for dim in value.shape]
        if value.shape is not None
        else None
    )
    return onnx.helper.make_tensor_type_proto(int(value.dtype or 0), dims)


def _take_type(value: ir.Value, proto: onnx.TypeProto) -> None:
    if not proto.HasField("tensor_type"):
        value.type = ir.serde.deserialize_type_proto_for_type(proto)
        return
    tensor = proto.tensor_type
    dims = None
    if tensor.HasField("shape"):
        dims = [
            dim.dim_value if dim.HasField("dim_value") else (dim.dim_param or None)
            for dim in tensor.shape.dim
        ]
    _set_type(value, ir.DataType(tensor.elem_type), None if dims is None else ir.Shape(dims))


def _set_type(value: ir.Value, dtype: ir.DataType | None, shape: ir.Shape | None) -> None:
    """Keep a shape that is there unless the new one is all numbers: exporters know sums of names."""
    if dtype is not None:
        value.dtype = dtype
    if shape is not None and (value.shape is None or all(isinstance(dim, int) for dim in shape)):
        value.shape = shape

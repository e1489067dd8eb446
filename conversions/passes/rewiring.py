"""What passes share: nodes with known shapes, constants by value, and a result in another's place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import onnx_ir as ir

from conversions.shape_inference import fix_sizes


def take_place(new: ir.Value, old: ir.Value) -> None:
    """Let a value stand in for another: it gets its name, type, shape and readers, graph outputs included."""
    new.name, new.type, new.shape = old.name, old.type, old.shape
    old.name = f"{old.name}_replaced"
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)


def biased(value: ir.Value | None) -> tuple[ir.Value, ir.Value] | None:
    """Return what a bias was added to, and the bias, where the sum has one reader.

    Args:
        value: What may be the sum of a value, whatever made it, and one initializer of one dimension.
    """
    node = value.producer() if value is not None else None
    if value is None or node is None or (node.domain, node.op_type) != ("", "Add"):
        return None
    vectors = [each for each in node.inputs if each is not None and _is_vector(each)]
    if len(vectors) != 1 or len(value.uses()) != 1 or value.is_graph_output():
        return None
    (bias,) = vectors
    (rest,) = (each for each in node.inputs if each is not bias)
    return (rest, bias) if rest is not None else None


def _is_vector(value: ir.Value) -> bool:
    return value.is_initializer() and value.shape is not None and len(value.shape) == 1


def only_reader(value: ir.Value, operator: str) -> ir.Node | None:
    """Return the node that alone reads a value, where it is of this operator."""
    readers = {use.node for use in value.uses()}
    if len(readers) != 1 or value.is_graph_output():
        return None
    (node,) = readers
    return node if node.op_type == operator else None


def nodes_at(
    model: ir.Model, sizes: Mapping[str, int] | None, operator: tuple[str, str]
) -> Iterator[tuple[ir.Node, ir.Node]]:
    """Yield an operator's nodes, each with its copy in which all shapes are known; nodes need no names.

    Args:
        model: The model; what is written in it meanwhile is not found.
        sizes: Of the free dimensions of its inputs; None where every shape of the model is known already.
        operator: Domain and type.

    Raises:
        ConversionError: A free dimension has no size.
    """
    found = {node.outputs[0].name: node for node in model.graph if (node.domain, node.op_type) == operator}
    if found:
        for fixed in list(model.graph if sizes is None else fix_sizes(model, sizes).graph):
            if (node := found.get(fixed.outputs[0].name)) is not None:
                yield node, fixed


class NodeWriter:
    """Writes nodes before a given one; each is named after it, and equal constants are shared.

    Args:
        graph: The graph to write in.
        prefix: Begins the names of constants.
    """

    def __init__(self, graph: ir.Graph, prefix: str) -> None:
        self._graph = graph
        self._prefix = prefix
        self._constants: dict[tuple[str, tuple[int, ...], bytes], ir.Value] = {}
        self._before: ir.Node | None = None
        self._name = ""
        self._count = 0

    def start(self, before: ir.Node, name: str = "") -> None:
        """Write before this node from now on.

        Args:
            before: The node.
            name: Begins the names of what is written; the node's own name unless given.
        """
        self._before, self._count = before, 0
        self._name = name or str(before.name or before.outputs[0].name)

    def constant(self, numbers: Any, dtype: Any = np.int64) -> ir.Value:
        """Return an initializer of these numbers."""
        array = np.array(numbers, dtype=dtype)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            name = f"{self._prefix}_constant_{len(self._constants)}"
            value = ir.Value(name=name, const_value=ir.tensor(array, name=name))
            value.type = ir.TensorType(ir.DataType.from_numpy(array.dtype))
            value.shape = ir.Shape(array.shape)
            self._graph.initializers[name] = value
            self._constants[key] = value
        return self._constants[key]

    def add(self, operator: str, *inputs: ir.Value | None, **attributes: Any) -> ir.Value:
        """Write a node of ai.onnx and return its one output."""
        before = self._before
        if before is None:
            raise RuntimeError("start() was not called")
        self._count += 1
        name = f"{self._name}/{self._count}"
        node = ir.node(operator, inputs, attributes=attributes, name=name)
        node.outputs[0].name = name
        self._graph.insert_before(before, node)
        return node.outputs[0]

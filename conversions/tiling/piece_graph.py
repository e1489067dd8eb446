"""Write the graph of a piece: nodes of the whole graph, norms with given statistics, and statistics."""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir

from conversions.errors import ConversionError
from conversions.passes.rewiring import NodeWriter

FACTOR = "{}/factor"
"""Name of the input with a norm's factor, float32 ``[batch, channels, 1, 1]``."""

SUMMAND = "{}/summand"
"""Name of the input with its summand."""

COUNTED = "counted_{}"
"""Name of the input that is 1 where a pixel counts for statistics and 0 elsewhere, float32
``[1, 1, height, width]``, by the pixels for each of a window."""

MEAN = "{}/mean"
"""Name of the output with the means of a value's counted pixels, float32 ``[batch, channels, 1, 1]``."""

SQUARES = "{}/squares"
"""Name of the output with the sums of squared differences from the mean."""

_FLOAT = ir.DataType.FLOAT


class PieceGraph:
    """The graph of a piece while it is written.

    Args:
        whole: The graph that the piece is of.
    """

    def __init__(self, whole: ir.Model) -> None:
        self._whole = whole
        self._graph = ir.Graph(
            [], [], nodes=[], name=whole.graph.name, opset_imports=dict(whole.opset_imports)
        )
        self._values: dict[ir.Value, ir.Value] = {}
        self._counted: dict[int, ir.Value] = {}

    def take(self, value: ir.Value, shape: ir.Shape | None) -> None:
        """Make a value of the whole graph an input."""
        self._values[value] = self._input(str(value.name), value.dtype, shape)

    def take_window(self, value: ir.Value, times: int) -> None:
        """Make a window of a value an input, with its pixels for each of a window."""
        self.take(value, ir.Shape(["batch", channels(value), *_size(times)]))

    def write(self, nodes: Iterable[ir.Node]) -> None:
        """Write nodes as the whole graph has them."""
        for node in nodes:
            self._graph.append(
                ir.Node(
                    node.domain,
                    node.op_type,
                    [None if value is None else self._read(value) for value in node.inputs],
                    list(node.attributes.values()),
                    outputs=[self._copy(value) for value in node.outputs],
                    name=node.name,
                )
            )

    def write_norm(self, norm: ir.Node, name: str) -> None:
        """Write a group norm that is given its statistics; it computes in float32.

        Args:
            norm: A ``com.microsoft.GroupNorm``, channels first.
            name: Begins the names of the inputs with its factor and its summand.
        """
        image = norm.inputs[0]
        assert image is not None
        shape = ir.Shape(["batch", channels(image), 1, 1])
        factor, summand = (self._input(each.format(name), _FLOAT, shape) for each in (FACTOR, SUMMAND))
        output = self._copy(norm.outputs[0])
        last = ir.node(
            "Cast", [factor], {"to": output.dtype or _FLOAT}, outputs=[output], name=f"{name}/last"
        )
        self._graph.append(last)
        writer = NodeWriter(self._graph, f"{name}/constant")
        writer.start(last, name)

        read = self._read(image)
        wide = read if image.dtype == _FLOAT else writer.add("Cast", read, to=_FLOAT)
        result = writer.add("Add", writer.add("Mul", wide, factor), summand)
        if norm.attributes.get_int("activation", 0):
            result = writer.add("Mul", result, writer.add("Sigmoid", result))
        last.replace_input_with(0, result)

    def give(self, value: ir.Value) -> None:
        """Make a value an output."""
        self._graph.outputs.append(self._read(value))

    def measure(self, value: ir.Value, times: int) -> None:
        """Add outputs with the statistics of a value, which has ``times`` pixels for each of a window."""
        if times not in self._counted:
            self._counted[times] = self._input(COUNTED.format(times), _FLOAT, ir.Shape([1, 1, *_size(times)]))
        counted, image = self._counted[times], self._read(value)
        writer = NodeWriter(self._graph, f"{value.name}/constant")
        axes = writer.constant([2, 3])
        last = ir.node("ReduceSumSquare", [counted, axes], {"keepdims": 1}, name=SQUARES.format(value.name))
        self._graph.append(last)
        writer.start(last, f"{value.name}/statistics")
        if value.dtype != _FLOAT:
            image = writer.add("Cast", image, to=_FLOAT)
        pixels = writer.add("ReduceSum", counted, axes, keepdims=1)
        total = writer.add("ReduceSum", writer.add("Mul", image, counted), axes, keepdims=1)
        mean = writer.add("Div", total, pixels)
        apart = writer.add("Mul", writer.add("Sub", image, mean), counted)
        last.replace_input_with(0, apart)
        shape = ir.Shape(["batch", channels(value), 1, 1])
        for output, name in ((mean, MEAN), (last.outputs[0], SQUARES)):
            output.name = name.format(value.name)
            output.type, output.shape = ir.TensorType(_FLOAT), shape
            self._graph.outputs.append(output)

    def model(self) -> ir.Model:
        """Return the model, complete."""
        return ir.Model(self._graph, ir_version=self._whole.ir_version)

    def _input(self, name: str, dtype: ir.DataType | None, shape: ir.Shape | None) -> ir.Value:
        value = ir.Value(name=name, type=ir.TensorType(dtype or _FLOAT), shape=shape)
        self._graph.inputs.append(value)
        return value

    def _read(self, value: ir.Value) -> ir.Value:
        if value not in self._values and value.is_initializer():
            copy = self._copy(value)
            copy.const_value = value.const_value
            self._graph.initializers[str(value.name)] = copy
        return self._values[value]

    def _copy(self, value: ir.Value) -> ir.Value:
        copy = ir.Value(name=value.name, type=value.type, shape=value.shape)
        self._values[value] = copy
        return copy


def channels(value: ir.Value) -> int:
    """Return the channels of an image in a graph.

    Raises:
        ConversionError: ``tiling.shape``: they are not known, or it is no image.
    """
    shape = value.shape
    if shape is None or len(shape) != 4 or not isinstance(shape[1], int):
        raise ConversionError("tiling.shape", f"'{value.name}' is not an image of known channels.")
    return int(shape[1])


def _size(times: int) -> tuple[str, str]:
    return f"height_{times}", f"width_{times}"

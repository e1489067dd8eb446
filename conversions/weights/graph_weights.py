"""The weights of a graph that was written, where they lie and as PyTorch has them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from conversions.checkpoint.element_types import Numbers
from conversions.checkpoint.safetensors_header import StoredTensor
from conversions.weights.expression import Expression, Reshape, Stored, Transpose, evaluate_range
from conversions.weights.kernels import to_float16, to_float32

if TYPE_CHECKING:
    import onnx_ir as ir

# Elements that are merged at once, so that what is between reading and rounding stays in the cache.
_PIECE_ELEMENTS = 1 << 18


@dataclass(frozen=True, kw_only=True)
class GraphWeight:
    """A weight of a graph and where it lies.

    Attributes:
        tensor: Its place in a file beside the graph.
        transposed: Whether a matrix is stored as ``[in, out]``.
    """

    tensor: StoredTensor
    transposed: bool

    @property
    def expression(self) -> Expression:
        """The weight as PyTorch has it; a vector without the axes of length one that a graph may give it."""
        return as_in_pytorch(Stored(tensor=self.tensor), transposed=self.transposed)

    def evaluate(self, changed: Expression, read: Callable[[StoredTensor, int, int], Numbers]) -> Numbers:
        """Evaluate a changed weight and store it as the graph has it."""
        ordered = Transpose(of=changed) if self.transposed else changed
        result = np.empty(ordered.size, np.float16 if self.tensor.dtype == "F16" else np.float32)
        step = max(1, _PIECE_ELEMENTS // ordered.granule) * ordered.granule
        for first in range(0, ordered.size, step):
            count = min(step, ordered.size - first)
            piece = to_float32(evaluate_range(ordered, first, count, read))
            result[first : first + count] = to_float16(piece) if result.dtype == np.float16 else piece
        return result.reshape(self.tensor.shape)


def as_in_pytorch(stored: Expression, *, transposed: bool) -> Expression:
    """Return a weight of a graph as PyTorch has it: matrices ``[out, in]``, vectors with one axis."""
    if transposed:
        return Transpose(of=stored)
    significant = tuple(size for size in stored.shape if size != 1)
    return Reshape(of=stored, to=significant) if len(significant) == 1 else stored


def graph_weights(graph: Path) -> dict[str, GraphWeight]:
    """Return the weights that lie in files beside a graph, by initializer.

    Args:
        graph: An ONNX file.
    """
    import onnx_ir as ir

    types = {ir.DataType.FLOAT16: "F16", ir.DataType.FLOAT: "F32"}
    found = {}
    for name, value in ir.load(graph).graph.initializers.items():
        tensor = value.const_value
        if not isinstance(tensor, ir.ExternalTensor) or tensor.dtype not in types:
            continue
        shape = tuple(int(size) for size in tensor.shape.numpy())
        found[name] = GraphWeight(
            tensor=StoredTensor(
                name=name,
                file=str(tensor.location),
                dtype=types[tensor.dtype],
                shape=shape,
                offset=tensor.offset or 0,
                size_bytes=tensor.nbytes,
            ),
            transposed=len(shape) == 2 and _is_transposed(value),
        )
    return found


def _is_transposed(weight: ir.Value) -> bool:
    """Whether the readers of a matrix want it as ``[in, out]``: MatMul does, unless it transposes itself."""
    for node, place in weight.uses():
        if node.op_type == "Cast":
            return _is_transposed(node.outputs[0])
        if node.op_type in ("MatMul", "FusedMatMul", "Gemm"):
            return place == 1 and not node.attributes.get_int("transB", 0)
    return False

"""Products, rounding and ranges by ONNX Runtime's kernels, each call on the thread that calls.

numpy's matrix product starts threads of its own, which get in each other's way when several threads multiply
at once: merging a LoRA into SDXL's attention on two cores took 63 s of processor time so, 9 s on one thread
each. numpy also rounds to float16 without the processor's instruction for it, 6.5 ns a number against 0.4 ns,
and finds the range of short rows at 4 ns a number, against 1 ns. Without ONNX Runtime numpy does the same,
slower.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from conversions.weights.not_finite import infinite

Float32 = npt.NDArray[np.float32]
Float16 = npt.NDArray[np.float16]

_FEWEST = 4096
"""Numbers below which a call costs more than it saves."""


def multiply(left: Float32, right: Float32) -> Float32:
    """Return the product of two matrices, float32 ``[m, k]`` and ``[k, n]``."""
    if not left.size or not right.size or (session := _session("MatMul")) is None:
        return left @ right
    product: Float32 = session.run(None, {"a": left, "b": right})[0]
    return product


def to_float32(numbers: npt.NDArray[Any]) -> Float32:
    """Return numbers as float32; those that are it already are not copied."""
    if numbers.dtype != np.float16 or numbers.size < _FEWEST or (session := _session("Widen")) is None:
        return numbers.astype(np.float32, copy=False)
    widened: Float32 = session.run(None, {"a": numbers.reshape(-1)})[0]
    return widened.reshape(numbers.shape)


def to_float16(numbers: Float32) -> Float16:
    """Round float32 to the nearest float16, ties to even; what is too large becomes infinite."""
    if numbers.size < _FEWEST or (session := _session("Narrow")) is None:
        with np.errstate(over="ignore", invalid="ignore"):
            return numbers.astype(np.float16)
    rounded: Float16 = session.run(None, {"a": numbers.reshape(-1)})[0]
    return rounded.reshape(numbers.shape)


def ranges(rows: Float32) -> tuple[Float32, Float32]:
    """Return the least and the largest number of each row of ``[..., length]``; NaN where it holds one."""
    if rows.size < _FEWEST or infinite(rows) or (session := _session("Ranges")) is None:
        return rows.min(-1), rows.max(-1)
    least, largest = session.run(None, {"a": rows.reshape(-1, rows.shape[-1])})
    return least.reshape(rows.shape[:-1]), largest.reshape(rows.shape[:-1])


@cache
def _session(which: str) -> Any:
    """Return a session of one node; None where there is no ONNX Runtime."""
    try:
        import onnxruntime
    except ImportError:
        return None
    from onnx import TensorProto, helper

    wide, half = TensorProto.FLOAT, TensorProto.FLOAT16
    nodes, inputs, outputs = {
        "MatMul": (
            [helper.make_node("MatMul", ["a", "b"], ["c"])],
            [("a", wide, ["m", "k"]), ("b", wide, ["k", "n"])],
            [("c", wide, ["m", "n"])],
        ),
        "Widen": (
            [helper.make_node("Cast", ["a"], ["c"], to=wide)],
            [("a", half, ["n"])],
            [("c", wide, ["n"])],
        ),
        "Narrow": (
            [helper.make_node("Cast", ["a"], ["c"], to=half)],
            [("a", wide, ["n"])],
            [("c", half, ["n"])],
        ),
        "Ranges": (
            [
                helper.make_node("ReduceMin", ["a", "axis"], ["least"], keepdims=0),
                helper.make_node("ReduceMax", ["a", "axis"], ["largest"], keepdims=0),
            ],
            [("a", wide, ["m", "n"])],
            [("least", wide, ["m"]), ("largest", wide, ["m"])],
        ),
    }[which]
    graph = helper.make_graph(
        nodes,
        which,
        [helper.make_tensor_value_info(*each) for each in inputs],
        [helper.make_tensor_value_info(*each) for each in outputs],
        [helper.make_tensor("axis", TensorProto.INT64, [1], [1])] if which == "Ranges" else [],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = False
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )

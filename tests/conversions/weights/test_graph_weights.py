"""Weights of a graph that was written: where they lie, and how PyTorch has them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from conversions.checkpoint.safetensors_header import StoredTensor
from conversions.weights import graph_weights as module
from conversions.weights.expression import Expression, Reshape, Stored, Transpose, evaluate_range
from conversions.weights.graph_weights import GraphWeight, as_in_pytorch, graph_weights
from conversions.weights.read_numbers import read_numbers

RANDOM = np.random.default_rng(5)
MATRIX = RANDOM.standard_normal((6, 6))
WEIGHTS: dict[str, Any] = {
    **dict.fromkeys(("product", "left", "plain", "stored", "linear", "turned", "cast", "table"), MATRIX),
    "vector": RANDOM.standard_normal((6, 1, 1)),
    "kernel": RANDOM.standard_normal((6, 6, 1, 1)),
}
TRANSPOSED = {"product", "plain", "turned", "cast"}
BODY = """
    a = MatMul(x, product)
    b = MatMul(left, a)
    b_2 = com.microsoft.FusedMatMul (b, plain)
    c = com.microsoft.FusedMatMul <transB = 1> (b_2, stored)
    d = Gemm <transB = 1> (c, linear)
    e = Gemm(d, turned)
    cast_2 = Cast <to = 1> (cast)
    f = MatMul(e, cast_2)
    g = Gather(table, numbers)
    h = Add(f, g)
    i = Add(h, vector)
    j = Conv(i, kernel)
    k = Add(j, within)
    y = Identity(k)
"""


@pytest.fixture(params=["float16", "float32"])
def graph(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A graph whose weights lie in a file beside it; one lies in the graph, another holds whole numbers."""
    text = f"""<ir_version: 10, opset_import: ["" : 18, "com.microsoft" : 1]>
    g (float[6, 6] x) => (float[n] y) {{ {BODY} }}"""
    model = ir.from_proto(onnx.parser.parse_model(text))
    arrays: dict[str, Any] = {"numbers": np.arange(6), "within": np.ones(6, request.param)}
    arrays |= {name: array.astype(request.param) for name, array in WEIGHTS.items()}
    for name, array in arrays.items():
        value = ir.Value(name=name, const_value=ir.tensor(array, name=name))
        value.shape, value.dtype = ir.Shape(array.shape), ir.DataType.from_numpy(array.dtype)
        for node in model.graph:
            for place, given in enumerate(node.inputs):
                if given is not None and given.name == name:
                    node.replace_input_with(place, value)
        model.graph.initializers[name] = value
    within = model.graph.initializers.pop("within")
    path = tmp_path / "model.onnx"
    ir.save(model, path, external_data="weights.bin", size_threshold_bytes=0)
    saved = ir.load(path)
    within.name = "within"
    saved.graph.initializers["within"] = within
    onnx.save(ir.to_proto(saved), path)
    return path


def test_weights_of_files_beside_a_graph_are_found_with_their_place(graph: Path) -> None:
    found = graph_weights(graph)
    assert set(found) == set(WEIGHTS)
    assert {name for name, weight in found.items() if weight.transposed} == TRANSPOSED
    content = (graph.parent / "weights.bin").read_bytes()
    for name, weight in found.items():
        tensor = weight.tensor
        element = {"F16": np.float16, "F32": np.float32}[tensor.dtype]
        assert (tensor.name, tensor.file, tensor.shape) == (name, "weights.bin", WEIGHTS[name].shape)
        assert all(type(size) is int for size in tensor.shape)
        assert tensor.size_bytes == WEIGHTS[name].size * np.dtype(element).itemsize
        stored = np.frombuffer(content, element, WEIGHTS[name].size, tensor.offset)
        assert np.array_equal(stored.reshape(tensor.shape), WEIGHTS[name].astype(element))
    assert len({weight.tensor.offset for weight in found.values()}) == len(found)


def test_weights_are_read_as_pytorch_has_them_and_written_back(
    graph: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = read_numbers({"weights.bin": graph.parent / "weights.bin"})
    for pieces in (module._PIECE_ELEMENTS, 7, 1):
        monkeypatch.setattr(module, "_PIECE_ELEMENTS", pieces)
        for name, weight in graph_weights(graph).items():
            expression = weight.expression
            numbers = evaluate_range(expression, 0, expression.size, read).reshape(expression.shape)
            stored = WEIGHTS[name].astype(numbers.dtype)
            wanted = stored.T if name in TRANSPOSED else stored.reshape(-1) if name == "vector" else stored
            assert np.array_equal(numbers, wanted), name
            back = weight.evaluate(expression, read)
            assert back.dtype == {"F16": np.float16, "F32": np.float32}[weight.tensor.dtype]
            assert np.array_equal(back, stored), name


def stored(*shape: int) -> Stored:
    return Stored(tensor=StoredTensor(name="w", file="a", dtype="F16", shape=shape, offset=0, size_bytes=0))


def test_only_vectors_lose_their_axes_of_length_one() -> None:
    def shape(of: Expression, *, transposed: bool = False) -> tuple[int, ...]:
        return as_in_pytorch(of, transposed=transposed).shape

    assert shape(stored(1, 6, 1, 1)) == (6,)
    assert shape(stored(6)) == (6,)
    assert shape(stored(6, 4, 1, 1)) == (6, 4, 1, 1)
    assert shape(stored(1, 1)) == (1, 1)
    assert shape(stored(6, 4), transposed=True) == (4, 6)
    assert shape(stored(6, 1), transposed=True) == (1, 6)
    assert isinstance(as_in_pytorch(stored(6, 1), transposed=False), Reshape)
    assert isinstance(as_in_pytorch(stored(6, 1), transposed=True), Transpose)


def test_a_change_in_float32_is_rounded_to_what_is_stored() -> None:
    tensor = StoredTensor(name="w", file="a", dtype="F16", shape=(2, 3), offset=0, size_bytes=12)
    other = StoredTensor(name="o", file="b", dtype="F32", shape=(3, 2), offset=0, size_bytes=24)
    numbers = np.array([[1.0001, 2], [3, 1e-9], [5, 6]], np.float32)

    def read(asked: StoredTensor, first: int, count: int) -> Any:
        assert asked is other
        return numbers.reshape(-1)[first : first + count]

    found = GraphWeight(tensor=tensor, transposed=True).evaluate(Stored(tensor=other), read)
    assert found.dtype == np.float16
    assert found.tolist() == numbers.T.astype(np.float16).tolist()


def test_a_weight_is_merged_piece_by_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    tensor = StoredTensor(name="w", file="a", dtype="F32", shape=(7, 2), offset=0, size_bytes=56)
    asked = []

    def read(_: StoredTensor, first: int, count: int) -> Any:
        asked.append((first, count))
        return np.arange(first, first + count, dtype=np.float32)

    monkeypatch.setattr(module, "_PIECE_ELEMENTS", 4)
    found = GraphWeight(tensor=tensor, transposed=False).evaluate(Stored(tensor=tensor), read)
    assert found.tolist() == np.arange(14).reshape(7, 2).tolist()
    assert asked == [(0, 4), (4, 4), (8, 4), (12, 2)]

"""A small graph that is evaluated on stored weights of all types, as they are and as they are quantised."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from safetensors.numpy import save_file

from conversions import graphs
from conversions.checkpoint.safetensors_header import read_header
from conversions.checkpoint.storage import Folder
from conversions.errors import ConversionError
from conversions.graph_kind import GraphKind, Rename, TensorSpec, WeightScale
from conversions.passes.simplify import TRANSPOSED
from conversions.verification.float32_graph import evaluate
from conversions.verification.reference import ExpressionWeights, Reference
from conversions.weights.expression import Stored, rows
from conversions.weights.quantize import quantize

WIDTH, HIDDEN = 32, 6
FILE = "weights.safetensors"
RANDOM = np.random.default_rng(4)
X = RANDOM.standard_normal((2, 5, WIDTH)).astype(np.float32)
# The checkpoint has the rows of the weights' results, which the graph multiplies from the right.
WEIGHTS: dict[str, Any] = {
    "up.weight": RANDOM.standard_normal((HIDDEN, WIDTH)).astype(np.float32),
    "down.weight": RANDOM.standard_normal((WIDTH, HIDDEN)).astype(np.float32),
    "down.bias": RANDOM.standard_normal(WIDTH).astype(np.float32),
    "plain.weight": RANDOM.standard_normal((WIDTH, WIDTH)).astype(np.float32),
}
KIND = GraphKind(
    id="layers",
    class_name="Layers",
    defaults={},
    irrelevant=frozenset(),
    inputs=lambda _: (TensorSpec(name="x", dtype="float", shape=("batch", "tokens", WIDTH)),),
    outputs=lambda _: (
        TensorSpec(name="y", dtype="float", shape=("batch", "tokens", WIDTH)),
        TensorSpec(name="z", dtype="float", shape=("batch", "tokens", WIDTH)),
    ),
    component_class=lambda: None,
    create=lambda _: None,
    wrap=lambda _: None,
    renames=(Rename(pattern=r"^old\.", replacement=""),),
    scales=(WeightScale(pattern=r"^down\.weight$", factor=0.25),),
)


def gelu(x: Any) -> Any:
    import math

    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def expected(weights: dict[str, Any]) -> dict[str, Any]:
    """What the graph means; the second matrix is stored in quarters and read twice."""
    numbers = {name: np.asarray(each, np.float64) for name, each in weights.items()}
    down = 0.25 * numbers["down.weight"].T
    y = gelu(X @ numbers["up.weight"].T) @ down + numbers["down.bias"]
    return {"y": y, "z": np.maximum(X @ numbers["up.weight"].T, 0) @ down @ numbers["plain.weight"]}


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    text = f"""
    <ir_version: 10, opset_import: ["" : 18, "com.microsoft" : 1]>
    g (float[batch, tokens, {WIDTH}] x, float[{WIDTH}, {HIDDEN}] up, float[{HIDDEN}, {WIDTH}] down,
       float[{WIDTH}] bias, float[{WIDTH}, {WIDTH}] plain)
    => (float[batch, tokens, {WIDTH}] y, float[batch, tokens, {WIDTH}] z)
    {{
        h = MatMul(x, up) a = com.microsoft.Gelu(h) m = MatMul(a, down) y = Add(m, bias)
        r = Relu(h) d = MatMul(r, down) z = MatMul(d, plain)
    }}
    """
    model = ir.from_proto(onnx.parser.parse_model(text))
    names = {"up": "up.weight", "down": "down.weight", "bias": "down.bias", "plain": "plain.weight"}
    for value in list(model.graph.inputs)[1:]:
        model.graph.inputs.remove(value)
        value.name = names[str(value.name)]
        if value.name in ("up.weight", "down.weight"):
            value.metadata_props[TRANSPOSED] = "1"
        model.graph.initializers[value.name] = value
    graphs.keep(graphs.pack(model), KIND, {}, tmp_path / "graphs")
    return tmp_path / "graphs"


def stored(folder: Path, weights: dict[str, Any], prefix: str = "") -> ExpressionWeights:
    save_file({name: np.ascontiguousarray(each) for name, each in weights.items()}, folder / FILE)
    tensors = read_header(Folder(folder), FILE)
    return ExpressionWeights(
        tensors={f"{prefix}{name}": Stored(tensor=each) for name, each in tensors.items()},
        paths={FILE: folder / FILE},
    )


def assert_is(found: Reference, wanted: dict[str, Any]) -> None:
    assert list(found.outputs) == ["y", "z"]
    for name, numbers in wanted.items():
        np.testing.assert_allclose(found.outputs[name], numbers, rtol=1e-4, atol=1e-4)


def test_weights_are_turned_scaled_and_found_by_older_names(cache: Path, tmp_path: Path) -> None:
    found = evaluate(KIND, {}, stored(tmp_path, WEIGHTS, "old."), {"x": X}, cache=cache)
    assert_is(found, expected(WEIGHTS))
    assert found.unquantized is None
    # Nobody looked at what is computed on the way.
    assert (found.largest, found.largest_deviation) == (np.inf, np.inf)


def test_weights_in_float16_are_computed_with_in_float32(cache: Path, tmp_path: Path) -> None:
    narrow = {name: each.astype(np.float16) for name, each in WEIGHTS.items()}
    assert_is(evaluate(KIND, {}, stored(tmp_path, narrow), {"x": X}, cache=cache), expected(narrow))


def test_parts_of_a_stored_tensor_and_other_types_are_read_too(cache: Path, tmp_path: Path) -> None:
    both = np.concatenate([np.zeros((3, WIDTH), np.float32), WEIGHTS["up.weight"]])
    weights = stored(tmp_path, {**WEIGHTS, "up.weight": both, "down.bias": WEIGHTS["down.bias"].astype("f8")})
    tensors = dict(weights.tensors)
    tensors["up.weight"] = rows(next(tensors["up.weight"].stored), 3, 3 + HIDDEN)
    part = ExpressionWeights(tensors=tensors, paths=weights.paths)
    assert_is(evaluate(KIND, {}, part, {"x": X}, cache=cache), expected(WEIGHTS))


def test_of_quantised_weights_both_results_are_given(cache: Path, tmp_path: Path) -> None:
    for dtype in (np.float32, np.float16):
        weights = {name: each.astype(dtype) for name, each in WEIGHTS.items()}
        given = stored(tmp_path, weights)
        quantized = {"up.weight": "int4", "plain.weight": "int8"}
        found = evaluate(KIND, {}, given, {"x": X}, quantized, cache=cache)
        restored = {
            name: quantize(weights[name].astype(np.float32), bits, np.float16).restored()
            for name, bits in (("up.weight", 4), ("plain.weight", 8))
        }
        assert_is(found, expected({**weights, **restored}))
        assert found.unquantized is not None
        for name, numbers in expected(weights).items():
            np.testing.assert_allclose(found.unquantized[name], numbers, rtol=1e-4, atol=1e-4)


def test_a_weight_that_is_missing_is_named(cache: Path, tmp_path: Path) -> None:
    given = stored(tmp_path, {"down.bias": WEIGHTS["down.bias"]})
    with pytest.raises(ConversionError) as caught:
        evaluate(KIND, {}, given, {"x": X}, cache=cache)
    assert caught.value.code == "weights.missing"
    assert caught.value.message == "There is no tensor for down.weight of layers."
    assert "download it again" in caught.value.hint


def test_without_a_graph_the_class_is_named(tmp_path: Path) -> None:
    given = stored(tmp_path, WEIGHTS)
    for cache in (None, tmp_path):
        with pytest.raises(ConversionError, match="The graph of Layers is not at hand") as caught:
            evaluate(KIND, {}, given, {"x": X}, cache=cache)
        assert caught.value.code == "verify.no_graph"

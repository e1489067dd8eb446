from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from conversions.passes.slice_attention import slice_attention
from tests.conversions.graphs_for_tests import run_on_cpu

SIZES = {"batch": 2, "length": 6}
HEADS = 2
# Bytes of the scores of one element of the batch: 2 heads, 6 queries, 6 keys, float32.
ONE_ELEMENT = HEADS * 6 * 6 * 4


def graph(inputs: str = "q, k, v", more: str = "", dtype: str = "float") -> ir.Model:
    text = f"""
    <ir_version: 10, opset_import: ["" : 18, "com.microsoft" : 1]>
    g ({dtype}[batch, length, 8] q, {dtype}[batch, length, 8] k, {dtype}[batch, length, 8] v{more})
      => ({dtype}[batch, length, 8] y)
    {{
      [attention] a = com.microsoft.MultiHeadAttention <num_heads = {HEADS}, scale = 0.7> ({inputs})
      y = Neg(a)
    }}
    """
    return ir.from_proto(onnx.parser.parse_model(text))


def attentions(model: ir.Model) -> int:
    return sum(node.op_type == "MultiHeadAttention" for node in model.graph)


def feeds() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {name: random.normal(0, 1, (2, 6, 8)).astype(np.float32) for name in "qkv"}


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        (2 * ONE_ELEMENT - 1, 2),
        (ONE_ELEMENT, 2),
        (ONE_ELEMENT - 1, 4),
        # Four queries fit, three and three are as few slices and more even.
        (HEADS * 4 * 6 * 4, 4),
        (HEADS * 2 * 6 * 4 - 1, 12),
        (1, 12),
    ],
)
def test_slices_compute_the_same_and_have_no_more_scores_than_allowed(limit: int, expected: int) -> None:
    before, after = graph(), graph()
    assert slice_attention(after, SIZES, limit) == 1
    assert attentions(after) == expected
    (whole,) = run_on_cpu(before, feeds())
    (sliced,) = run_on_cpu(after, feeds())
    np.testing.assert_allclose(sliced, whole, rtol=1e-5, atol=1e-6)


def test_nodes_need_no_names() -> None:
    model = graph()
    for node in model.graph:
        node.name = ""
    assert slice_attention(model, SIZES, ONE_ELEMENT) == 1


def test_slices_are_even() -> None:
    model = graph()
    slice_attention(model, SIZES, HEADS * 4 * 6 * 4)
    lengths = [node.inputs[1].const_value.numpy().tolist() for node in model.graph if node.op_type == "Split"]
    assert sorted(lengths) == [[1, 1], [1, 1], [1, 1], [3, 3], [3, 3]]


def test_each_slice_waits_for_the_one_before() -> None:
    model = graph()
    slice_attention(model, SIZES, ONE_ELEMENT - 1)
    first, *others = [node for node in model.graph if node.op_type == "MultiHeadAttention"]
    for earlier, later in zip([first, *others], others, strict=False):
        waiting = later.inputs[0].producer()
        assert waiting.op_type == "Where"
        assert waiting.inputs[1].producer().inputs[0] is earlier.outputs[0]


def test_what_a_slice_waits_for_does_not_reach_it() -> None:
    inputs = feeds()
    inputs["q"][0] = np.nan
    model = graph()
    slice_attention(model, SIZES, ONE_ELEMENT)
    (answer,) = run_on_cpu(model, inputs)
    assert np.isnan(answer[0]).all()
    assert np.isfinite(answer[1]).all()


def test_few_scores_stay_one_operator() -> None:
    model = graph()
    assert slice_attention(model, SIZES, 2 * ONE_ELEMENT) == 0
    assert [node.op_type for node in model.graph] == ["MultiHeadAttention", "Neg"]


def test_float16_scores_take_half() -> None:
    model = graph(dtype="float16")
    assert slice_attention(model, SIZES, ONE_ELEMENT) == 0
    assert slice_attention(model, SIZES, ONE_ELEMENT - 1) == 1


@pytest.mark.parametrize(("batch", "length", "slices"), [(1, 4096, 0), (2, 4096, 2), (1, 4097, 2)])
def test_one_image_s_scores_in_stable_diffusion_s_largest_layer_stay_whole(
    batch: int, length: int, slices: int
) -> None:
    model = graph(dtype="float16")
    (attention,) = (node for node in model.graph if node.op_type == "MultiHeadAttention")
    attention.attributes["num_heads"] = ir.AttrInt64("num_heads", 8)
    slice_attention(model, {"batch": batch, "length": length})
    assert attentions(model) == (slices or 1)


def test_what_is_written_is_named_after_the_operator_and_the_pass() -> None:
    model = graph()
    slice_attention(model, SIZES, ONE_ELEMENT - 1)
    splits = {node.name for node in model.graph if node.op_type == "Split"}
    inputs = {"attention/query", "attention/key", "attention/value"}
    assert splits == inputs | {"attention/query/0", "attention/query/1"}
    names = {node.name for node in model.graph if node.op_type == "MultiHeadAttention"}
    assert names == {f"attention/{element}/{piece}" for element in (0, 1) for piece in (0, 1)}
    assert all(name.startswith("slice_attention_constant_") for name in model.graph.initializers)


def test_an_attention_bias_is_left_alone() -> None:
    model = graph("q, k, v, , , bias", ", float[batch, 2, length, length] bias")
    assert slice_attention(model, SIZES, 1) == 0
    assert attentions(model) == 1


def test_no_attention_needs_no_sizes() -> None:
    text = '<ir_version: 10, opset_import: ["" : 18]> g (float[n] x) => (float[n] y) { y = Neg(x) }'
    assert slice_attention(ir.from_proto(onnx.parser.parse_model(text)), {}) == 0

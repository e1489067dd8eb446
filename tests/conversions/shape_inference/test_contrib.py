"""Shapes of what ONNX Runtime's own operators give."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir
import pytest

from conversions.shape_inference.contrib import IN_ONNX_DOMAIN, contrib_shapes

Dims = list[int | str]


def shapes(operator: str, *inputs: Dims | None, **attributes: Any) -> list[Dims | None]:
    """Return the shapes of an operator's outputs; an input of None has no shape."""
    values = [
        ir.Value(name=f"v{place}", shape=None if dims is None else ir.Shape(dims))
        for place, dims in enumerate(inputs)
    ]
    node = ir.node(operator, values, attributes, domain="com.microsoft")
    return [
        None if shape is None else [dim if isinstance(dim, int) else str(dim.value) for dim in shape]
        for shape in contrib_shapes(node)
    ]


@pytest.mark.parametrize(
    "operator",
    [
        *("BiasAdd", "BiasGelu", "FastGelu", "Gelu", "GroupNorm", "QuickGelu", "RotaryEmbedding"),
        "SimplifiedLayerNormalization",
    ],
)
def test_some_keep_the_shape_of_their_first_input(operator: str) -> None:
    assert shapes(operator, ["batch", 3, 8], [8]) == [["batch", 3, 8]]


def test_a_split_halves_the_last_axis() -> None:
    assert shapes("BiasSplitGelu", ["batch", 3, 8], [8]) == [["batch", 3, 4]]
    assert shapes("BiasSplitGelu", ["batch", 3, "width"], [8]) == []


@pytest.mark.parametrize("operator", ["SkipLayerNormalization", "SkipSimplifiedLayerNormalization"])
def test_a_norm_with_a_skip_gives_norm_statistics_and_sum(operator: str) -> None:
    whole, statistics = ["batch", 3, 8], ["batch", 3, 1]
    assert shapes(operator, whole, whole) == [whole, statistics, statistics, whole]


def test_attention_has_the_query_s_length_and_the_value_s_width() -> None:
    query, key, value = ["batch", "q", 8], ["batch", "k", 8], ["batch", "k", 16]
    assert shapes("MultiHeadAttention", query, key, value) == [["batch", "q", 16]]
    assert shapes("MultiHeadAttention", query, key, value, [16]) == [["batch", "q", 16]]
    # Packed forms, and forms of four axes, are left unknown.
    assert shapes("MultiHeadAttention", query, key) == []
    assert shapes("MultiHeadAttention", query, key, None) == []
    assert shapes("MultiHeadAttention", query, key, ["batch", 2, "k", 8]) == []
    assert shapes("MultiHeadAttention", ["batch", "q", 2, 3, 8], key, value) == []


@pytest.mark.parametrize(
    ("attributes", "second", "expected"),
    [
        ({}, [8, 5], ["batch", 3, 5]),
        ({"transB": 1}, [5, 8], ["batch", 3, 5]),
        ({"transA": 1}, [3, 5], ["batch", 8, 5]),
        ({"transA": 1, "transB": 1}, [5, 3], ["batch", 8, 5]),
    ],
)
def test_a_product_by_a_matrix(attributes: dict[str, int], second: Dims, expected: Dims) -> None:
    assert shapes("FusedMatMul", ["batch", 3, 8], second, **attributes) == [expected]
    assert shapes("FusedMatMul", ["other", "batch", 3, 8], second, **attributes) == [["other", *expected]]


@pytest.mark.parametrize(
    ("first", "second"),
    [(["batch", 3, 8], ["batch", 8, 5]), (["batch", 3, 8], [8]), (["batch", 3, 8], None), ([8], [8, 5])],
)
def test_other_products_are_left_unknown(first: Dims, second: Dims | None) -> None:
    assert shapes("FusedMatMul", first, second) == []


def test_a_product_of_two_axes_is_known() -> None:
    assert shapes("FusedMatMul", ["rows", 8], [8, 5]) == [["rows", 5]]


def test_a_quantised_product_says_its_columns() -> None:
    assert shapes("MatMulNBits", ["batch", 3, 8], [5, 1, 16], N=5) == [["batch", 3, 5]]
    assert shapes("MatMulNBits", ["batch", 3, 8], [5, 1, 16]) == []


def test_what_is_not_known_stays_so() -> None:
    assert shapes("Something", ["batch", 3]) == []
    assert shapes("Gelu", None) == []
    assert shapes("Gelu") == []
    node = ir.node("Gelu", [None], domain="com.microsoft")
    assert contrib_shapes(node) == []
    product = ir.node("FusedMatMul", [ir.Value(shape=ir.Shape([2, 2])), None], domain="com.microsoft")
    assert contrib_shapes(product) == []
    assert {"SimplifiedLayerNormalization"} == IN_ONNX_DOMAIN

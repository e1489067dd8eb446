from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from conversions.errors import ConversionError
from conversions.passes.expand_attention import expand_attention
from tests.conversions.graphs_for_tests import psnr, run_on_cpu


def attention(*, bias: bool = False, extra: str = "") -> ir.Model:
    inputs = "float[batch, length, 32] q, float[batch, sequence, 32] k, float[batch, sequence, 48] v"
    inputs += ", float[batch, 4, length, sequence] bias" if bias else ""
    text = f"""
    <ir_version: 10, opset_import: ["" : 18, "com.microsoft" : 1]>
    g ({inputs}) => (float[batch, length, 48] y)
    {{ y = com.microsoft.MultiHeadAttention <num_heads = 4{extra}> (q, k, v{", , , bias" if bias else ""}) }}
    """
    return ir.from_proto(onnx.parser.parse_model(text))


def feeds(*, bias: bool = False) -> dict[str, np.ndarray]:
    random = np.random.default_rng(5)
    shapes = {"q": (2, 11, 32), "k": (2, 7, 32), "v": (2, 7, 48)} | ({"bias": (2, 4, 11, 7)} if bias else {})
    return {name: random.normal(0, 1.5, shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("extra", ["", ", scale = 0.5"])
def test_expanded_attention_computes_what_the_operator_computes(bias: bool, extra: str) -> None:
    twin = run_on_cpu(attention(bias=bias, extra=extra), feeds(bias=bias))[0]
    model = attention(bias=bias, extra=extra)

    assert expand_attention(model) == 1
    assert all(node.domain == "" for node in model.graph)
    assert psnr(twin, run_on_cpu(model, feeds(bias=bias))[0]) > 120


def test_causal_attention_is_refused() -> None:
    with pytest.raises(ConversionError, match="cannot be expanded"):
        expand_attention(attention(extra=", unidirectional = 1"))


@pytest.mark.parametrize("place", [3, 4, 6, 7])
def test_masks_and_pasts_are_refused(place: int) -> None:
    """Inputs of the operator: bias 3, padding mask 4, attention bias 5, past key 6 and past value 7."""
    model = attention(bias=True)
    (node,) = model.graph
    inputs = [*node.inputs[:3], *[None] * 5]
    inputs[place] = node.inputs[5]
    replaced = ir.node(
        "MultiHeadAttention", inputs, {"num_heads": 4}, domain="com.microsoft", outputs=[ir.Value(name="z")]
    )
    model.graph.append(replaced)
    with pytest.raises(ConversionError, match="cannot be expanded"):
        expand_attention(model)

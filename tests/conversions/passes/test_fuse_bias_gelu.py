from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir

from conversions.passes.fuse_bias_gelu import fuse_bias_gelu
from tests.conversions.graphs_for_tests import psnr, run_on_cpu


def graph(body: str = "a = Add(x, b) y = com.microsoft.Gelu(a)") -> ir.Model:
    text = f"""
    <ir_version: 10, opset_import: ["" : 18, "com.microsoft" : 1]>
    g (float[batch, length, 3] x) => (float[batch, length, 3] y)
    <float[3] b = {{0.5, -1.25, 2}}> {{ {body} }}
    """
    return ir.from_proto(onnx.parser.parse_model(text))


def test_the_fused_graph_computes_what_its_unfused_twin_computes() -> None:
    feeds = {"x": np.random.default_rng(1).normal(0, 2, (2, 50, 3)).astype(np.float32)}
    twin = run_on_cpu(graph(), feeds)[0]
    model = graph()

    assert fuse_bias_gelu(model) == 1
    assert [node.op_type for node in model.graph] == ["BiasGelu"]
    assert psnr(twin, run_on_cpu(model, feeds)[0]) > 120


def test_a_bias_on_the_left_is_fused_too() -> None:
    assert fuse_bias_gelu(graph("a = Add(b, x) y = com.microsoft.Gelu(a)")) == 1


def test_a_sum_that_is_read_twice_is_left_alone() -> None:
    assert fuse_bias_gelu(graph("a = Add(x, b) g = com.microsoft.Gelu(a) y = Mul(a, g)")) == 0


def test_a_computed_summand_is_left_alone() -> None:
    assert fuse_bias_gelu(graph("a = Add(x, x) y = com.microsoft.Gelu(a)")) == 0

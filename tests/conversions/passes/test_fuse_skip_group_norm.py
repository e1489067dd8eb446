from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from conversions.passes.fuse_skip_group_norm import fuse_skip_group_norm
from conversions.passes.group_norm_channels_last import group_norm_channels_last
from tests.conversions.graphs_for_tests import psnr, run_by_definition

CONV = "c = Conv <pads = [1, 1, 1, 1]> (x, w, bias)"
EMBEDDING = "t = Unsqueeze(e, last) a = Add(c, t)"
RESIDUAL = "r = Conv <pads = [1, 1, 1, 1]> (h, w) a = Add(c, r)"
NORM = """
    n = com.microsoft.GroupNorm <groups = 2, activation = 1, channels_last = 0, epsilon = 0.00001>
        (a, scale, shift)
"""
ONWARD = "y = Add(n, a)"
END = "y = Identity(n)"


def graph(
    *lines: str,
    embedding: str = "batch, 4",
    residual: str = "batch, 4, height, width",
    size: str = "batch, 4, height, width",
    known: str = "",
) -> ir.Model:
    """A convolution, what is added to it, the next block's group normalisation."""
    text = f"""
    <ir_version: 10, opset_import: ["" : 18, "com.microsoft" : 1, "com.example" : 1]>
    g (float[{size}] x, float[{embedding}] e, float[{residual}] h) => (float[{size}] y)
    <int64[2] last = {{2, 3}}{known}>
    {{ {" ".join(lines)} }}
    """
    proto = onnx.parser.parse_model(text)
    random = np.random.default_rng(2)
    arrays = {
        "w": random.normal(0, 0.3, (4, 4, 3, 3)),
        "bias": random.normal(0, 1, 4),
        "scale": random.normal(1, 0.3, 4),
        "shift": random.normal(0, 0.3, 4),
    }
    proto.graph.initializer.extend(
        onnx.numpy_helper.from_array(array.astype(np.float32), name) for name, array in arrays.items()
    )
    return ir.from_proto(proto)


def feeds() -> dict[str, np.ndarray]:
    random = np.random.default_rng(1)
    shapes = {"x": (2, 4, 6, 8), "e": (2, 4), "h": (2, 4, 6, 8)}
    return {name: random.normal(0, 2, shape).astype(np.float32) for name, shape in shapes.items()}


def operators(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("end", [END, ONWARD])
@pytest.mark.parametrize(
    "added", [EMBEDDING, RESIDUAL, "r = Conv <pads = [1, 1, 1, 1]> (h, w) a = Add(r, c)"]
)
def test_the_fused_graph_computes_what_its_unfused_twin_computes(
    added: str, end: str, channels_last: bool
) -> None:
    lines = (CONV, added, NORM, end)
    twin = run_by_definition(graph(*lines), feeds())[0]
    model = graph(*lines)

    assert fuse_skip_group_norm(model) == 1
    if channels_last:
        assert group_norm_channels_last(model) == 1
    assert "SkipGroupNorm" in operators(model)
    assert "GroupNorm" not in operators(model)
    assert psnr(twin, run_by_definition(model, feeds())[0]) > 110


def test_the_convolution_loses_its_bias_and_the_sum_is_written_only_where_it_is_read() -> None:
    model = graph(CONV, EMBEDDING, NORM, END)
    fuse_skip_group_norm(model)
    convolution, fused = (node for node in model.graph if node.op_type in ("Conv", "SkipGroupNorm"))
    assert len(convolution.inputs) == 2
    assert len(fused.outputs) == 1
    assert [value.name for value in fused.inputs[3:]] == ["e", "bias"]


@pytest.mark.parametrize(
    "lines",
    [
        (CONV, RESIDUAL, NORM, "y = Add(n, c)"),
        ("c = Conv <pads = [1, 1, 1, 1]> (x, w)", RESIDUAL, NORM, END),
        ("d = Conv <pads = [1, 1, 1, 1]> (x, w, bias) c = Relu(d)", RESIDUAL, NORM, END),
        (CONV, RESIDUAL, NORM.replace("channels_last = 0", "channels_last = 1"), END),
    ],
    ids=["convolution-read-again", "no-bias", "not-a-convolution", "channels-last-already"],
)
def test_other_forms_stay(lines: tuple[str, ...]) -> None:
    assert fuse_skip_group_norm(graph(*lines)) == 0


def test_a_summand_that_is_broadcast_stays() -> None:
    assert fuse_skip_group_norm(graph(CONV, EMBEDDING, NORM, END, embedding="1, 4")) == 0
    assert fuse_skip_group_norm(graph(CONV, "a = Add(c, h)", NORM, END, residual="batch, 4, 1, 1")) == 0


@pytest.mark.parametrize(
    ("embedding", "size"), [("2, 4", "2, 4, 6, 8"), ("images, 4", "batch, 4, height, width")]
)
def test_a_batch_that_is_fixed_or_has_another_name_is_the_same(embedding: str, size: str) -> None:
    assert fuse_skip_group_norm(graph(CONV, EMBEDDING, NORM, END, embedding=embedding, size=size)) == 1


def test_a_summand_whose_vector_has_no_known_shape_stays() -> None:
    lines = ("u = com.example.Unknown(e)", EMBEDDING.replace("(e, last)", "(u, last)"))
    model = graph(CONV, *lines, NORM, END, known=", float[] u, float[batch, 4, 1, 1] t")
    assert fuse_skip_group_norm(model) == 0

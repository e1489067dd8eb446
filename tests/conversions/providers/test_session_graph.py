"""What a provider is given of a package's graph; the packages are real, the weights stay where they are."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import numpy_helper, parser

from conversions.providers.session_graph import _CONCERNS, SessionGraph, session_graph
from conversions.providers.table import PROVIDERS, provider_for
from tests.conversions.graphs_for_tests import group_norm_graph

GRAPH = """
<ir_version: 10, opset_import: ["" : 18, "com.microsoft" : 1]>
g (float[batch, 4, height, width] x, float[batch, sequence, 8] q, int32[batch, sequence] ids)
    => (float[batch, 4, height, width] y, float[batch, sequence, 8] a, int64[batch, 1] place) {
    y = com.microsoft.GroupNorm<groups = 2, activation = 1, channels_last = 0>(x, gain, bias)
    a = com.microsoft.MultiHeadAttention<num_heads = 2>(q, q, q)
    place = ArgMax<axis = 1>(ids)
}"""
FUSED = {"GroupNorm", "MultiHeadAttention"}


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = parser.parse_model(GRAPH)
    for name in ("gain", "bias"):
        model.graph.initializer.append(numpy_helper.from_array(np.ones(4, np.float32), name))
    path = tmp_path_factory.mktemp("graph") / "model.onnx"
    onnx.save(model, path, save_as_external_data=True, location="model.onnx_data", size_threshold=0)
    return path


def operators(form: SessionGraph) -> Counter[str]:
    given = onnx.load(form.model, load_external_data=False) if isinstance(form.model, str) else None
    model = given or onnx.ModelProto.FromString(form.model)
    return Counter(node.op_type for node in model.graph.node)


@pytest.mark.parametrize(
    ("target", "kept"),
    [
        ("directml", FUSED),
        ("cuda", FUSED),
        ("cpu", {"MultiHeadAttention"}),
        ("openvino", set()),
        ("webgpu", {"MultiHeadAttention"}),
        ("migraphx", set()),
        ("coreml", set()),
    ],
)
def test_a_provider_gets_the_fused_operators_it_has_kernels_for_and_no_other(
    graph: Path, target: str, kept: set[str]
) -> None:
    assert FUSED & set(operators(session_graph(graph, provider_for(target)))) == kept


def test_cuda_searches_token_ids_as_float32(graph: Path) -> None:
    form = session_graph(graph, provider_for("cuda"))
    model = onnx.ModelProto.FromString(form.model)
    (cast,) = (node for node in model.graph.node if node.op_type == "Cast" and "ids" in node.input)
    (argmax,) = (node for node in model.graph.node if node.op_type == "ArgMax")
    assert cast.attribute[0].i == onnx.TensorProto.FLOAT
    assert argmax.input[0] == cast.output[0]


def test_cuda_normalises_groups_with_channels_last(graph: Path) -> None:
    form = session_graph(graph, provider_for("cuda"))
    model = onnx.ModelProto.FromString(form.model)
    (norm,) = (node for node in model.graph.node if node.op_type == "GroupNorm")
    assert {each.name: each.i for each in norm.attribute}["channels_last"] == 1


LAYERS = """
<ir_version: 10, opset_import: ["" : 18, "com.microsoft" : 1]>
g (float16[batch, length, 8] x, float16[batch, length, 8] h) => (float16[batch, length, 1280] y) {
    p = MatMul(x, square)
    b = Add(p, bias)
    s = Add(b, h)
    n = LayerNormalization(s, gain, bias)
    q = MatMul(n, wide)
    c = Add(q, wide_bias)
    l, r = Split <axis = -1, num_outputs = 2> (c)
    g = com.microsoft.Gelu(r)
    y = Mul(l, g)
}"""


@pytest.mark.parametrize(
    ("target", "added"),
    [("cuda", {"SkipLayerNormalization", "BiasSplitGelu"}), ("cpu", set()), ("directml", set())],
)
def test_cuda_alone_gets_a_transformer_s_layers_fused(tmp_path: Path, target: str, added: set[str]) -> None:
    model = parser.parse_model(LAYERS)
    shapes = {"square": (8, 8), "bias": 8, "gain": 8, "wide": (8, 2560), "wide_bias": 2560}
    for name, shape in shapes.items():
        model.graph.initializer.append(numpy_helper.from_array(np.ones(shape, np.float16), name))
    path = tmp_path / "model.onnx"
    onnx.save(model, path, save_as_external_data=True, location="model.onnx_data", size_threshold=0)

    found = operators(session_graph(path, provider_for(target)))

    assert {name for name in found if name in ("SkipLayerNormalization", "BiasSplitGelu")} == added
    assert found["MatMul"] == 2
    if added:
        assert set(found) == added | {"MatMul"}


def test_a_graph_that_needs_no_change_is_handed_over_as_its_file(graph: Path) -> None:
    assert session_graph(graph, provider_for("directml")) == SessionGraph(model=str(graph))


def test_the_weights_stay_in_the_package_s_own_file(graph: Path) -> None:
    form = session_graph(graph, provider_for("cuda"))
    model = onnx.ModelProto.FromString(form.model)
    external = {each.name for each in model.graph.initializer if each.external_data}
    assert external == {"gain", "bias"}
    assert form.config == {"session.model_external_initializers_file_folder_path": str(graph.parent)}


def test_a_group_norm_between_casts_is_written_out_in_its_own_type(tmp_path: Path) -> None:
    """As after layers that stay in float32: no type is written on the Cast."""
    model = onnx.parser.parse_model("""
    <ir_version: 10, opset_import: ["" : 18, "com.microsoft" : 1]>
    g (float[n, 4, h, w] x) => (float16[n, 4, h, w] y)
    <float16[4] gain = {1, 1, 1, 1}, float16[4] bias = {0, 0, 0, 0}>
    {
        small = Cast <to = 10> (x)
        y = com.microsoft.GroupNorm <groups = 2, activation = 1, channels_last = 0> (small, gain, bias)
    }
    """)
    onnx.save(model, tmp_path / "model.onnx")
    form = session_graph(tmp_path / "model.onnx", provider_for("cpu"))
    session = onnxruntime.InferenceSession(form.model, providers=["CPUExecutionProvider"])
    x = np.random.default_rng(4).normal(0, 1, (1, 4, 3, 5)).astype(np.float32)
    assert session.run(None, {"x": x})[0].dtype == np.float16


PRODUCT = "r = com.microsoft.FusedMatMul <transB = 1> (q, square)"
NORM = "r = com.microsoft.GroupNorm <groups = 2, activation = 1, channels_last = 0> (x, gain, bias)"
# What each pass rewrites, without an operator that it does not need.
REWRITTEN = {
    "argmax_in_float": "r = ArgMax <axis = 1> (ids)",
    "drop_allowzero": "r = Reshape <allowzero = 1> (q, flat)",
    "expand_attention": "r = com.microsoft.MultiHeadAttention <num_heads = 2> (q, q, q)",
    "expand_fused_matmul": PRODUCT,
    "expand_group_norm": NORM,
    "fuse_bias_split_gelu": """
        p = MatMul(q, wide) c = Add(p, wide_bias) l, t = Split <axis = -1, num_outputs = 2> (c)
        g = com.microsoft.Gelu(t) r = Mul(l, g)
    """,
    "fuse_skip_group_norm": "c = Conv(x, kernel, bias) d = Conv(x, kernel) s = Add(c, d)"
    + NORM.replace("(x", "(s"),
    "fuse_skip_layer_norm": """
        p = MatMul(q, square) b = Add(p, wider_bias) s = Add(b, q)
        r = LayerNormalization(s, wider_gain, wider_bias)
    """,
    "fused_matmul_to_gemm": PRODUCT,
    "group_norm_channels_last": NORM,
}
SHAPES = {
    "gain": 4,
    "bias": 4,
    "wider_gain": 8,
    "wider_bias": 8,
    "square": (8, 8),
    "wide": (8, 2560),
    "wide_bias": 2560,
    "kernel": (4, 4, 1, 1),
}


def only(body: str, path: Path) -> Path:
    """Write a graph of some operators and of the weights that they read."""
    model = parser.parse_model(f"""
    <ir_version: 10, opset_import: ["" : 18, "com.microsoft" : 1]>
    g (float[batch, 4, height, width] x, float[batch, sequence, 8] q, int32[batch, sequence] ids)
        => (float[] r)
    <int64[2] flat = {{-1, 8}}> {{ {body} }}
    """)
    read = {name for node in model.graph.node for name in node.input}
    for name, shape in SHAPES.items():
        if name in read:
            model.graph.initializer.append(numpy_helper.from_array(np.ones(shape, np.float32), name))
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("name", sorted(REWRITTEN))
def test_every_pass_gets_the_graphs_that_it_rewrites(tmp_path: Path, name: str) -> None:
    path = only(REWRITTEN[name], tmp_path / "model.onnx")
    provider = replace(provider_for("cpu"), at_load=(name,))
    assert isinstance(session_graph(path, provider).model, bytes)


def test_what_reads_a_group_norm_gets_the_graph_in_which_it_is_written_out(
    tmp_path: Path,
) -> None:
    onnx.save(ir.to_proto(group_norm_graph()), tmp_path / "model.onnx")
    at_load = ("fuse_group_norm", "group_norm_channels_last")
    form = session_graph(tmp_path / "model.onnx", replace(provider_for("cpu"), at_load=at_load))
    assert operators(form)["GroupNorm"] == 1
    assert operators(form)["Transpose"] == 2
    read_later = {name for name, concerns in _CONCERNS.items() if b"InstanceNormalization" in concerns}
    assert read_later == {"fuse_group_norm", "fuse_skip_group_norm", "group_norm_channels_last"}


def test_what_each_provider_rewrites_is_known() -> None:
    assert {name for provider in PROVIDERS for name in provider.at_load} == set(_CONCERNS)
    assert set(REWRITTEN) | {"fuse_group_norm"} == set(_CONCERNS)


@pytest.mark.parametrize(
    "body",
    ["y = Neg(x) r = Identity(y)", NORM],
    ids=["no-pass-looks-at-it", "a-pass-finds-nothing"],
)
def test_an_edit_is_made_where_no_pass_changes_anything(tmp_path: Path, body: str) -> None:
    path = only(body, tmp_path / "model.onnx")
    provider = replace(provider_for("cpu"), at_load=("fuse_skip_group_norm", "drop_allowzero"))
    assert session_graph(path, provider) == SessionGraph(model=str(path))

    def rename(model: ir.Model) -> None:
        model.graph.name = "edited"

    form = session_graph(path, provider, [rename])
    assert isinstance(form.model, bytes)
    assert onnx.ModelProto.FromString(form.model).graph.name == "edited"


def test_what_an_edit_leaves_without_a_reader_is_named(graph: Path) -> None:
    def drop(model: ir.Model) -> None:
        del model.graph.initializers["gain"]

    assert session_graph(graph, provider_for("directml"), [drop]).removed == {"gain"}

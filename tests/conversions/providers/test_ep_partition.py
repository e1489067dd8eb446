from __future__ import annotations

from pathlib import Path

import onnx
import onnx_ir as ir
import pytest

from conversions.errors import ConversionError
from conversions.package.layout import open_package
from conversions.passes.fuse_group_norm import fuse_group_norm
from conversions.pipeline_graphs import package_graphs
from conversions.providers.ep_partition import (
    PlacementReport,
    check_graphs,
    check_placement,
    demand_kernels,
)
from conversions.recipe import ImageSize
from tests.conversions.graphs_for_tests import group_norm_graph

SIZES = {"batch": 2, "height": 8, "width": 16}


def parsed(
    body: str, *, opset: int = 18, dtype: str = "float", shape: str = "batch, 4, height, width"
) -> ir.Model:
    text = f"""
    <ir_version: 10, opset_import: ["" : {opset}, "com.microsoft" : 1]>
    g ({dtype}[{shape}] x) => ({dtype}[] y) {body}
    """
    model = ir.from_proto(onnx.parser.parse_model(text))
    model.graph.outputs[0].shape = None
    for value in {value for node in model.graph for value in node.inputs if value is not None}:
        if value.producer() is None and not value.is_graph_input():
            model.graph.initializers[str(value.name)] = value
    return model


def check(model: ir.Model) -> PlacementReport:
    return check_placement(model, "directml", SIZES)


def test_a_fused_block_is_one_graph_on_the_device() -> None:
    model = group_norm_graph()
    fuse_group_norm(model)

    report = check(model)

    assert report.whole
    assert [node.operator for node in report.nodes] == ["Conv", "com.microsoft.GroupNorm", "Conv"]
    assert report.covered_share == 1.0
    assert report.summary() == "3 nodes: 3 fused; 1 fused graph"
    demand_kernels(report)


def test_weights_without_data_are_enough() -> None:
    model = group_norm_graph()
    for name in ("weight", "bias", "before"):
        model.graph.initializers[name].const_value = None

    assert check(model).whole


def test_shape_arithmetic_disappears_when_sizes_are_fixed() -> None:
    model = parsed(
        "<int64[1] minus = {-1}, int64[1] zero = {0}> {"
        " s = Shape(x) b = Gather(s, zero) t = Concat <axis = 0> (b, minus) y = Reshape(x, t) }"
    )

    report = check(model)

    assert [node.operator for node in report.nodes] == ["Reshape"]
    assert report.whole
    assert report.shape_nodes == report.computed_shapes == 0


FAULTS = {
    "a convolution of opset 22": (
        parsed("<float[4, 4, 1, 1] w> { y = Conv(x, w) }", opset=22),
        "cpu",
        "no kernel for Conv-22, only for 1, 11",
    ),
    "the Gelu of opset 20": (parsed("{ y = Gelu(x) }", opset=20), "cpu", "no kernel for Gelu"),
    "a bfloat16 tensor": (
        parsed("{ y = Add(x, x) }", dtype="bfloat16"),
        "cpu",
        "no kernel of Add-14 for bf16",
    ),
    "a product of five dimensions": (
        parsed("{ y = MatMul(x, x) }", shape="batch, 1, 4, 8, 8"),
        "refused",
        "MatMul of 5 dimensions; 4 is the most",
    ),
    "a reshape with allowzero and a -1": (
        parsed("<int64[2] s = {2, -1}> { y = Reshape <allowzero = 1> (x, s) }"),
        "refused",
        "Reshape with allowzero and a -1 in its shape",
    ),
    "one that shows when the sizes are fixed": (
        parsed(
            "<int64[1] m = {-1}>"
            " { b = Shape <end = 1> (x) s = Concat <axis = 0> (b, m) y = Reshape <allowzero = 1> (x, s) }"
        ),
        "refused",
        "Reshape with allowzero and a -1 in its shape",
    ),
    "a cubic resize": (
        parsed('<float[4] s = {1, 1, 2, 2}> { y = Resize <mode = "cubic"> (x, , s) }'),
        "cpu",
        "no kernel of Resize-18 for Resize with mode 'cubic'",
    ),
    "an attention bias to broadcast": (
        parsed(
            "<float[1, 1, 8, 8] bias>"
            " { y = com.microsoft.MultiHeadAttention <num_heads = 4> (x, x, x, , , bias) }",
            shape="batch, height, width",
        ),
        "refused",
        "an attention bias that would have to be broadcast",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(fault: str) -> None:
    model, place, reason = FAULTS[fault]

    report = check(model)

    (node,) = report.unfit
    assert (node.place, node.reason) == (place, reason)
    assert not report.whole
    with pytest.raises(ConversionError, match="directml cannot run"):
        demand_kernels(report)


def test_a_reshape_with_allowzero_and_all_its_sizes_is_right() -> None:
    assert check(parsed("<int64[2] s = {8, 128}> { y = Reshape <allowzero = 1> (x, s) }")).whole


def test_control_flow_switches_fusing_off_for_the_whole_graph() -> None:
    branch = "float[] b) { b = Constant <value_float = 1.0> () }"
    model = parsed(
        f"{{ a = Relu(x) c = Constant <value = bool {{1}}> () f = Cast <to = 9> (a) z = ReduceMax(a)"
        f" q = Greater(z, z) k = Squeeze(q)"
        f" i = If (k) <then_branch = t () => ({branch}, else_branch = e () => ({branch}>"
        f" y = Mul(a, i) }}"
    )

    report = check(model)

    assert report.partitions == 0
    relu = next(node for node in report.nodes if node.operator == "Relu")
    assert (relu.place, relu.reason) == ("alone", "the graph has control flow, which switches fusing off")
    assert next(node for node in report.nodes if node.operator == "If").place != "fused"


def test_a_shape_that_is_computed_from_data_breaks_the_graph_in_two() -> None:
    model = parsed(
        "<int64[2] two = {1, -1}> { a = Relu(x) n = NonZero(a) s = Shape(n) p = ReduceProd <keepdims = 1> (s)"
        " t = Concat <axis = 0> (p, p) r = Reshape(a, s) y = Relu(r) }"
    )

    report = check(model)

    reshape = next(node for node in report.nodes if node.operator == "Reshape")
    assert reshape.place == "alone"
    assert "is computed, not constant" in reshape.reason
    assert report.computed_shapes == 1
    assert report.shape_nodes == 1
    assert not report.whole


def test_shapes_and_sizes_that_remain_are_counted() -> None:
    body = "a = NonZero(x) s = Shape(a) n = Size(a) c = Cast <to = 1> (a) d = Mul(c, c) y = Reshape(d, s)"
    report = check(parsed(f"{{ {body} }}"))
    assert (report.shape_nodes, report.computed_shapes) == (2, 1)


def test_a_size_that_was_not_given_is_named() -> None:
    with pytest.raises(ConversionError, match="free dimension 'width'"):
        check_placement(group_norm_graph(), "directml", {"batch": 1, "height": 8})


def test_a_target_without_a_kernel_table_says_so() -> None:
    with pytest.raises(ConversionError, match="no kernel table"):
        check_placement(group_norm_graph(), "cuda", SIZES)


@pytest.mark.torch
def test_a_package_is_checked_submodel_by_submodel(tiny_package: Path) -> None:
    graphs = package_graphs(open_package(tiny_package))

    reports = check_graphs(graphs, "directml", ImageSize(width=512, height=768, images=2))

    assert list(reports) == ["text_encoder", "unet", "vae_encoder", "vae_decoder", "safety_checker"]
    assert reports["vae_decoder"].sizes == {"batch": 2, "height": 96, "width": 64}
    assert reports["unet"].sizes == {"batch": 4, "height": 96, "width": 64, "sequence": 77}
    assert reports["vae_decoder"].partitions == 1

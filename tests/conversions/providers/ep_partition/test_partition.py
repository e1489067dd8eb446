"""Where DirectML runs each node of a graph, and what it fuses."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from conversions.providers.ep_partition.partition import SMALL_INITIALIZER, place_nodes
from conversions.providers.ep_partition.report import NodePlacement
from conversions.providers.kernels import load_table
from conversions.shape_inference import infer_shapes

SIZE = "s = Shape <end = 1> (x)"
ON_CPU = "works on shapes or small values that are on the CPU already"


def placed(body: str, *, weights: dict[str, np.ndarray] | None = None) -> dict[str, NodePlacement]:
    """Place the nodes of a graph; they are named after their first outputs."""
    text = f"""
    <ir_version: 10, opset_import: ["" : 18, "com.microsoft" : 1]>
    g (float[2, 4, 8, 8] x, int64[1] given) => (float[] y)
    <int64[1] u, int64[1] two = {{2}}, int64[1] one = {{1}}, int64[1] zero = {{0}}, float half = {{0.5}}>
    {{ {body} }}
    """
    proto = onnx.parser.parse_model(text)
    for name, array in (weights or {}).items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    model = ir.from_proto(proto)
    model.graph.outputs[0].shape = None
    infer_shapes(model)
    return {node.node: node for node in place_nodes(model, load_table("directml"))}


def places(body: str, **more: dict[str, np.ndarray]) -> dict[str, str]:
    return {name: node.place for name, node in placed(body, **more).items()}


@pytest.mark.parametrize("size", ["Shape <end = 1>", "Size"])
def test_what_computes_on_shapes_stays_on_the_cpu(size: str) -> None:
    found = placed(f"s = {size} (x) p = Mul(s, two) q = Mul(p, given) y = Reshape(x, q)")
    assert [found[name].place for name in "pq"] == ["cpu", "cpu"]
    assert {found[name].reason for name in "pq"} == {ON_CPU}
    # Of an input nobody knows whether it is a size.
    assert {name: node.role for name, node in found.items()} == {
        "s": "shape",
        "p": "shape",
        "q": "compute",
        "y": "compute",
    }
    assert found["y"].place == "alone"
    assert found["y"].reason == "its input 1 ('q') is computed, not constant"


@pytest.mark.parametrize(("more", "place"), [(0, "cpu"), (1, "fused")])
def test_a_large_table_is_on_the_device(more: int, place: str) -> None:
    table = {"table": np.ones(SMALL_INITIALIZER + more, np.int64)}
    assert SMALL_INITIALIZER == 100
    assert places(f"{SIZE} p = Mul(s, table) y = Reshape(x, p)", weights=table)["p"] == place


@pytest.mark.parametrize("order", ["two, s, d", "d, two, s", "s, two, d", "given, s, d"])
def test_one_value_on_the_device_brings_the_node_there(order: str) -> None:
    body = f"{SIZE} m = ReduceMax(x) b = Cast <to = 7> (m) d = Reshape(b, one)"
    assert places(f"{body} y = Concat <axis = 0> ({order})")["y"] == "fused"
    assert places(f"{SIZE} y = Concat <axis = 0> (two, s, given)")["y"] == "cpu"


def test_half_precision_is_computed_on_the_device() -> None:
    after = "h = Mul(f, f) i = Cast <to = 7> (h) y = Reshape(x, i)"
    found = places(f"{SIZE} f = Cast <to = 10> (s) {after}")
    assert (found["f"], found["h"]) == ("cpu", "fused")
    found = places(f"{SIZE} f = Cast <to = 1> (s) {after}")
    assert (found["f"], found["h"], found["i"]) == ("cpu", "cpu", "cpu")


def test_a_size_that_a_kernel_reads_on_the_host_does_not_bring_its_node_there() -> None:
    found = placed("s = Shape(x) t = Shape <end = 1> (s) r = Reshape(s, t) y = Reshape(x, r)")
    assert (found["r"].place, found["r"].role) == ("alone", "shape")


def test_what_follows_an_operator_without_a_kernel_is_on_the_cpu_with_it() -> None:
    found = placed("s = Shape <end = 1> (x) u = com.microsoft.Unknown(s) p = Mul(u, two) y = Reshape(x, p)")
    assert (found["u"].place, found["u"].reason) == ("cpu", "no kernel for com.microsoft.Unknown")
    assert (found["p"].place, found["p"].reason) == ("cpu", ON_CPU)


def test_neighbours_on_the_device_are_one_graph() -> None:
    found = placed("a = Relu(x) b = Neg(a) c = Abs(a) y = Add(b, c)")
    assert {node.partition for node in found.values()} == {found["a"].partition}
    assert {node.place for node in found.values()} == {"fused"}
    apart = placed("a = Relu(x) b = Neg(x) y = Add(a, b)")
    assert len({node.partition for node in apart.values()}) == 1


def test_a_node_of_its_own_closes_the_graphs_that_it_reads() -> None:
    after = "n = NonZero(a) f = Cast <to = 1> (n) m = ReduceMax(f) y = Mul(c, m)"
    found = placed(f"a = Relu(x) b = Neg(a) c = Abs(b) {after}")
    assert (found["n"].place, found["n"].partition) == ("alone", None)
    # What comes later is visited first: b reads a, whose graph was closed, and begins another.
    assert found["b"].partition == found["c"].partition == found["y"].partition
    assert found["a"].partition not in (None, found["b"].partition)


def test_empty_and_unknown_shapes_are_not_fused() -> None:
    found = placed("a = Relu(x) e = Slice(a, zero, zero, two) y = Neg(e)")
    assert found["e"].reason == "'e' is empty"
    assert found["y"].reason == "'e' is empty"
    unknown = placed("n = NonZero(x) f = Cast <to = 1> (n) y = Neg(f)")
    assert unknown["f"].reason == "the shape of 'n' is not known at these sizes"
    assert unknown["y"].reason == "the shape of 'f' is not known at these sizes"
    assert {unknown[name].place for name in "fy"} == {"alone"}


def test_a_node_without_a_name_is_named_after_its_result() -> None:
    found = placed("[named] a = Relu(x) y = Neg(a)")
    assert list(found) == ["named", "y"]
    assert found["named"].operator == "Relu"
    assert (found["y"].operator, found["y"].since) == ("Neg", 13)

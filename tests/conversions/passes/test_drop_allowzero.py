from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from conversions.family import Family, ShippedGraph
from conversions.graphs import find
from conversions.options import Options
from conversions.passes.adapt import adapt
from conversions.passes.drop_allowzero import drop_allowzero
from tests.conversions.graphs_for_tests import run_on_cpu
from tests.shipped import LABELS, SHIPPED, sizes_of, submodel_of


def parsed(constants: str, body: str) -> ir.Model:
    text = f"""
    <ir_version: 10, opset_import: ["" : 18]>
    g (float[n, 2, 6] x, int64[2] given) => (float[] y) <{constants}> {{ {body} }}
    """
    model = ir.from_proto(onnx.parser.parse_model(text))
    model.graph.outputs[0].shape = None
    return model


RESHAPE = "y = Reshape <allowzero = 1> (x, s)"
NEEDLESS = {
    "a constant with a -1": ("int64[2] s = {3, -1}", RESHAPE),
    "a constant without": ("int64[2] s = {6, 6}", RESHAPE),
    "a Constant node": ("int64 unused = {0}", "s = Constant <value_ints = [3, -1]> () " + RESHAPE),
    "a size picked out and a -1": (
        "int64[1] m = {-1}, int64[1] z = {0}",
        "d = Shape(x) b = Gather(d, z) s = Concat <axis = 0> (b, m) " + RESHAPE,
    ),
    "a product of sizes": (
        "int64[1] m = {-1}",
        "a = Shape <end = 1> (x) b = Shape <start = 1, end = 2> (x) p = Mul(a, b)"
        " s = Concat <axis = 0> (p, m) " + RESHAPE,
    ),
    "sizes that are turned and cast": (
        "int64[1] m = {-1}, int64[1] one = {1}, int64[1] none = {0}, int64[1] two = {2}",
        "d = Shape(x) f = Cast <to = 1> (d) i = Cast <to = 7> (f) t = Identity(i) l = Slice(t, none, two)"
        " r = Reshape(l, two) u = Unsqueeze(r, none) q = Squeeze(u, none) p = Gather(q, one)"
        " s = Concat <axis = 0> (p, m) " + RESHAPE,
    ),
}
NEEDED = {
    "a zero before sizes": (
        "int64[1] m = {0}, int64[1] six = {6}",
        "a = Shape <start = 1, end = 2> (x) s = Concat <axis = 0> (m, a, six) " + RESHAPE,
    ),
    "a size that is rounded to nothing": (
        "int64[1] m = {-1}, float[1] far = {0.001}",
        "a = Shape <end = 1> (x) f = Cast <to = 1> (a) g = Mul(f, far) o = Floor(g) p = Cast <to = 7> (o)"
        " s = Concat <axis = 0> (p, m) " + RESHAPE,
    ),
    "a zero": ("int64[3] s = {0, 2, 6}", RESHAPE),
    "a shape given from outside": ("int64 unused = {0}", "s = Identity(given) " + RESHAPE),
    "a difference of sizes": (
        "int64[1] m = {-1}, int64[1] two = {2}",
        "a = Shape <end = 1> (x) p = Sub(a, two) s = Concat <axis = 0> (p, m) " + RESHAPE,
    ),
    "a zero among sizes": (
        "int64[2] m = {0, 6}",
        "a = Shape <end = 1> (x) s = Concat <axis = 0> (a, m) " + RESHAPE,
    ),
}


def reshape(model: ir.Model) -> ir.Node:
    return next(node for node in model.graph if node.op_type == "Reshape")


@pytest.mark.parametrize("name", NEEDLESS)
def test_it_goes_where_the_shape_holds_no_zero_and_the_result_stays(name: str) -> None:
    before, after = parsed(*NEEDLESS[name]), parsed(*NEEDLESS[name])
    feeds = {"x": np.arange(36, dtype=np.float32).reshape(3, 2, 6), "given": np.array([6, 6])}

    assert drop_allowzero(after) == 1

    assert "allowzero" not in reshape(after).attributes
    np.testing.assert_array_equal(run_on_cpu(after, feeds)[0], run_on_cpu(before, feeds)[0])
    assert drop_allowzero(after) == 0


@pytest.mark.parametrize("name", NEEDED)
def test_it_stays_where_a_zero_may_come(name: str) -> None:
    model = parsed(*NEEDED[name])

    assert drop_allowzero(model) == 0

    assert reshape(model).attributes.get_int("allowzero") == 1


def test_every_reshape_is_looked_at_and_counted() -> None:
    body = "a = Reshape <allowzero = 1> (x, s) b = Reshape(a, s) c = Reshape <allowzero = 1> (b, z) "
    model = parsed("int64[2] s = {6, -1}, int64[2] z = {0, -1}", body + "y = Reshape <allowzero = 1> (c, s)")
    assert drop_allowzero(model) == 2
    assert [node.attributes.get_int("allowzero", 0) for node in model.graph] == [0, 0, 1, 0]


@pytest.mark.parametrize(("family", "shipped"), SHIPPED, ids=LABELS)
def test_no_graph_of_a_directml_package_has_one(family: Family, shipped: ShippedGraph) -> None:
    model = find(shipped.kind, shipped.config, None)
    assert model is not None
    options = Options(precision="fp16", target="directml")
    adapt(model, submodel_of(family, shipped), shipped.config, options, sizes_of(family, shipped, 512))

    assert not [node.name for node in model.graph if node.attributes.get_int("allowzero", 0)]

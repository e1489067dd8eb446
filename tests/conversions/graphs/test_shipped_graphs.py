"""The graphs that ship are what the tracer makes today: none is stale, none was edited, none is left over."""

from __future__ import annotations

import lzma

import onnx
import pytest

from conversions import graphs
from conversions.family import ShippedGraph, all_families

SHIPPED = [shipped for family in all_families() for shipped in family.shipped]
LABELS = [f"{shipped.label}: {shipped.kind.id}" for shipped in SHIPPED]
# Tracing these takes up to a minute each; tiny checkpoints are traced for all that they differ in.
SLOW = (
    *("1.x: unet", "XL: unet", "inpainting: unet", "refiner: unet", "consistency models: unet", "2.1: unet"),
    *("flux2", "z_image"),
    *("flux_transformer", "sd3_transformer", "qwen3_text", "pixart_transformer"),
    *("gemma2_text", "sana_transformer", "dc_decoder"),
)
TRACED = [
    pytest.param(each, id=label, marks=[pytest.mark.robustness] if label.endswith(SLOW) else [])
    for each, label in zip(SHIPPED, LABELS, strict=True)
]


def structure(packed: bytes) -> list[object]:
    """Everything a graph is but the names of its values: operators, wiring, weights, constants."""
    graph = onnx.ModelProto.FromString(lzma.decompress(packed)).graph
    made_by = {name: index for index, node in enumerate(graph.node) for name in node.output}
    constants = {each.name: each.raw_data for each in graph.initializer}
    specs = [(each.name, each.type.SerializeToString(), str(each.metadata_props)) for each in graph.input]
    nodes = [
        (
            node.domain,
            node.op_type,
            [made_by.get(name, constants.get(name, name)) for name in node.input],
            sorted(each.SerializeToString() for each in node.attribute),
        )
        for node in graph.node
    ]
    return [sorted(specs), nodes, [each.name for each in graph.output]]


@pytest.mark.torch
@pytest.mark.parametrize("shipped", TRACED)
def test_a_shipped_graph_is_what_the_tracer_makes(shipped: ShippedGraph) -> None:
    name = f"{graphs.fingerprint(shipped.kind, shipped.config)}.onnx.xz"
    stored = (graphs.SHIPPED_FOLDER / name).read_bytes()
    assert structure(stored) == structure(graphs.trace_and_pack(shipped.kind, shipped.config))


def test_every_architecture_has_its_graph_and_no_other_graph_ships() -> None:
    wanted = {f"{graphs.fingerprint(each.kind, each.config)}.onnx.xz" for each in SHIPPED}
    found = {path.name: path.stat().st_size for path in graphs.SHIPPED_FOLDER.iterdir()}
    assert set(found) == wanted
    assert sum(found.values()) < 10_000_000


def test_an_edited_graph_would_be_noticed() -> None:
    name = graphs.fingerprint(SHIPPED[0].kind, SHIPPED[0].config)
    packed = (graphs.SHIPPED_FOLDER / f"{name}.onnx.xz").read_bytes()
    model = onnx.ModelProto.FromString(lzma.decompress(packed))
    next(node for node in model.graph.node if node.op_type == "Add").op_type = "Sub"
    assert structure(lzma.compress(model.SerializeToString())) != structure(packed)

"""What a report says of nodes; where they are is given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from conversions.errors import ConversionError
from conversions.providers.ep_partition import NodePlacement, PlacementReport, demand_kernels


def placed(place: str, number: int = 0, **more: Any) -> NodePlacement:
    made: dict[str, Any] = {"node": f"{place}{number}", "operator": "Add", "since": 14, "place": place}
    return NodePlacement(**made, **more)


def report(nodes: Sequence[NodePlacement], submodel: str = "part") -> PlacementReport:
    return PlacementReport(
        submodel=submodel,
        target="directml",
        sizes={"batch": 2},
        nodes=tuple(nodes),
        shape_nodes=3,
        computed_shapes=4,
    )


MIXED = (
    placed("fused", 0, partition=0),
    placed("fused", 1, partition=2),
    placed("alone", reason="alone for this"),
    placed("cpu", reason="small", role="shape"),
    placed("cpu", 1, reason="no kernel"),
    placed("refused", reason="too many dimensions"),
)


def test_nodes_are_counted_by_where_they_run() -> None:
    mixed = report(MIXED)
    assert mixed.summary() == "6 nodes: 2 fused, 1 alone, 2 cpu, 1 refused; 2 fused graphs"
    assert report(MIXED[:1]).summary() == "1 nodes: 1 fused; 1 fused graph"
    assert report(()).summary() == "0 nodes: none; 0 fused graphs"
    assert (mixed.partitions, mixed.whole) == (2, False)
    assert [node.node for node in mixed.outside] == ["alone0", "cpu0", "cpu1", "refused0"]
    assert [node.node for node in mixed.unfit] == ["cpu1", "refused0"]


def test_the_share_is_of_what_computes() -> None:
    assert report(MIXED).covered_share == pytest.approx(3 / 5)
    assert report(()).covered_share == 1.0
    assert report(MIXED[3:4]).covered_share == 1.0
    assert report(MIXED[:3]).covered_share == 1.0
    assert report(MIXED[4:]).covered_share == 0.0


@pytest.mark.parametrize(
    ("nodes", "whole"),
    [
        (MIXED[:1], True),
        (MIXED[:2], False),
        ((MIXED[0], MIXED[2]), False),
        ((MIXED[0], MIXED[3]), False),
        ((), False),
    ],
)
def test_a_graph_is_whole_where_one_fused_graph_is_all(nodes: Sequence[NodePlacement], whole: bool) -> None:
    assert report(nodes).whole is whole


def test_plain_data_names_what_is_not_fused() -> None:
    assert report(MIXED).as_dict() == {
        "submodel": "part",
        "target": "directml",
        "sizes": {"batch": 2},
        "nodes": 6,
        "partitions": 2,
        "whole": False,
        "covered_share": 0.6,
        "shape_nodes": 3,
        "computed_shapes": 4,
        "outside": [
            {"node": "alone0", "operator": "Add", "place": "alone", "reason": "alone for this"},
            {"node": "cpu0", "operator": "Add", "place": "cpu", "reason": "small"},
            {"node": "cpu1", "operator": "Add", "place": "cpu", "reason": "no kernel"},
            {"node": "refused0", "operator": "Add", "place": "refused", "reason": "too many dimensions"},
        ],
    }


@pytest.mark.parametrize(("count", "more"), [(1, ""), (5, ""), (6, " and 1 more"), (9, " and 4 more")])
def test_five_nodes_without_a_kernel_are_named(count: int, more: str) -> None:
    nodes = [placed("cpu", number, reason="none") for number in range(count)]
    shown = "; ".join(f"cpu{number}: none" for number in range(min(count, 5)))
    with pytest.raises(ConversionError) as caught:
        demand_kernels(report([MIXED[0], *nodes]))
    assert caught.value.code == "placement.no_kernel"
    assert caught.value.message == f"part has nodes that directml cannot run: {shown}{more}."
    with pytest.raises(ConversionError, match=r"^The graph has nodes"):
        demand_kernels(report(nodes, submodel=""))


def test_what_runs_somewhere_else_is_no_fault_where_it_computes_nothing() -> None:
    demand_kernels(report(MIXED[:4]))
    assert MIXED[0].reason == ""

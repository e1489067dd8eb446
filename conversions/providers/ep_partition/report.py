"""Report of a placement check, node by node."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Place = Literal["fused", "alone", "cpu", "refused"]
"""fused: in one graph with its neighbours; alone: on the device, as a step of its own; cpu: no kernel, or
not worth the way to the device; refused: the provider takes the node, then fails to make its kernel and the
session with it."""


@dataclass(frozen=True, kw_only=True)
class NodePlacement:
    """Placement of one node.

    Attributes:
        node: Name of the node, or of its first output when it has none.
        operator: ``domain.Name``; no domain for ``ai.onnx``.
        since: Version of the operator's schema.
        place: Where it runs.
        partition: Number of the fused graph it is in; None outside of one.
        reason: Why it is not fused; empty when it is.
        role: ``"shape"`` for a node that only works on shapes, ``"compute"`` for all others.
    """

    node: str
    operator: str
    since: int
    place: Place
    partition: int | None = None
    reason: str = ""
    role: Literal["compute", "shape"] = "compute"


@dataclass(frozen=True, kw_only=True)
class PlacementReport:
    """Placement of every node of one graph at given sizes.

    Attributes:
        submodel: Name of the graph; may be empty.
        target: The target that was checked, for example ``"directml"``.
        sizes: Size of every free dimension.
        nodes: One entry per node that remains after fixing shapes and folding constants.
        shape_nodes: Number of remaining Shape and Size nodes.
        computed_shapes: Number of shape inputs (of Reshape, Slice, Resize ...) that are not constant.
    """

    submodel: str
    target: str
    sizes: Mapping[str, int]
    nodes: tuple[NodePlacement, ...]
    shape_nodes: int
    computed_shapes: int

    @property
    def partitions(self) -> int:
        """Number of fused graphs; 1 is best."""
        return len({node.partition for node in self.nodes if node.partition is not None})

    @property
    def unfit(self) -> tuple[NodePlacement, ...]:
        """Compute nodes that do not run on the device."""
        return tuple(
            node for node in self.nodes if node.place in ("cpu", "refused") and node.role == "compute"
        )

    @property
    def outside(self) -> tuple[NodePlacement, ...]:
        """Descriptions of all nodes that are not fused."""
        return tuple(node for node in self.nodes if node.place != "fused")

    @property
    def whole(self) -> bool:
        """Whether the target runs the graph as one fused graph, with nothing on the CPU."""
        return self.partitions == 1 and not self.outside

    @property
    def covered_share(self) -> float:
        """Share of the compute nodes that run on the device, 0 to 1."""
        compute = [node for node in self.nodes if node.role == "compute"]
        return 1.0 if not compute else 1.0 - len(self.unfit) / len(compute)

    def summary(self) -> str:
        """Summarise in one line how many nodes run where."""
        places = Counter(node.place for node in self.nodes)
        counted = ", ".join(
            f"{places[place]} {place}" for place in ("fused", "alone", "cpu", "refused") if places[place]
        )
        graphs = f"{self.partitions} fused graph{'' if self.partitions == 1 else 's'}"
        return f"{len(self.nodes)} nodes: {counted or 'none'}; {graphs}"

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON; fused nodes are only counted."""
        return {
            "submodel": self.submodel,
            "target": self.target,
            "sizes": dict(self.sizes),
            "nodes": len(self.nodes),
            "partitions": self.partitions,
            "whole": self.whole,
            "covered_share": self.covered_share,
            "shape_nodes": self.shape_nodes,
            "computed_shapes": self.computed_shapes,
            "outside": [
                {"node": node.node, "operator": node.operator, "place": node.place, "reason": node.reason}
                for node in self.outside
            ],
        }

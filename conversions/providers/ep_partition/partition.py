"""Partition a graph as DirectML's provider does: nodes it takes, and nodes it fuses into one graph.

Source: GetCapability, GetCpuPreferredNodes and BuildPartitions of ONNX Runtime 1.24.0, reimplemented.
"""

from __future__ import annotations

import onnx_ir as ir

from conversions.providers.ep_partition.matching import find_kernel, operator_of
from conversions.providers.ep_partition.report import NodePlacement, Place
from conversions.providers.ep_partition.rules import SHAPE_RULES
from conversions.providers.kernels import Kernel, KernelTable
from conversions.shape_inference import static_shape

SMALL_INITIALIZER = 100
"""Largest number of elements of an initializer that counts as being on the CPU.

Source: kSmallInitializerThreshold of core/framework/fallback_cpu_capability.cc.
"""

Found = dict[ir.Node, tuple[Kernel | None, int, str]]
"""Results of :func:`find_kernel` by node."""

_ON_HOST = frozenset({"Shape", "Size"})
"""Operators whose DirectML kernel leaves its result on the CPU."""


def place_nodes(model: ir.Model, table: KernelTable) -> tuple[NodePlacement, ...]:
    """Return where each node of a graph with fixed shapes runs."""
    opsets = dict(model.opset_imports)
    nodes = _visiting_order(list(model.graph))
    kernels = {node: find_kernel(node, opsets, table) for node in nodes}
    preferred = _cpu_preferred(nodes, kernels)
    fusing = not any(isinstance(attr.value, ir.Graph) for node in nodes for attr in node.attributes.values())
    shape_only = _shape_only(nodes)
    partitions = _Partitions()
    placed = []
    for node in nodes:
        kernel, since, reason = kernels[node]
        place: Place = "cpu"
        number = None
        if kernel is not None and node in preferred:
            reason = "works on shapes or small values that are on the CPU already"
        elif kernel is not None:
            rule = SHAPE_RULES.get(operator_of(node))
            refusal = rule(node) if rule else ""
            reason = refusal or ("" if fusing else "the graph has control flow, which switches fusing off")
            reason = reason or _reason_not_fused(
                node, kernel.fusible, kernel.host_inputs, kernel.fused_inputs
            )
            place = "refused" if refusal else "alone" if reason else "fused"
        if place == "fused":
            number = partitions.add_fused(node)
        else:
            partitions.add_single(node)
        placed.append((node, since, place, number, reason))
    return tuple(
        NodePlacement(
            node=node.name or str(node.outputs[0].name),
            operator=operator_of(node),
            since=since,
            place=place,
            partition=partitions.root(number) if number is not None else None,
            reason=reason,
            role="shape" if node in shape_only else "compute",
        )
        for node, since, place, number, reason in placed
    )


def _visiting_order(nodes: list[ir.Node]) -> list[ir.Node]:
    """Order nodes as ONNX Runtime visits them: depth first from the outputs, later inputs first.

    The order determines which partitions are still open at a node.
    Source: GraphViewer's default order and Graph::ReverseDFSFrom of ONNX Runtime, reimplemented.
    """
    place = {node: number for number, node in enumerate(nodes)}
    stack = [(node, False) for node in nodes if not any(output.uses() for output in node.outputs)]
    seen: set[ir.Node] = set()
    order: list[ir.Node] = []
    while stack:
        node, done = stack.pop()
        if done:
            order.append(node)
        elif node not in seen:
            seen.add(node)
            stack.append((node, True))
            sources = {value.producer() for value in node.inputs if value is not None}
            inputs = sorted(place[source] for source in sources if source in place)
            stack.extend((nodes[number], False) for number in inputs if nodes[number] not in seen)
    return order


def _reason_not_fused(
    node: ir.Node, fusible: bool, host_inputs: frozenset[int], fused_inputs: int | None
) -> str:
    if not fusible:
        return "its kernel cannot be part of a fused graph"
    for index in sorted(host_inputs):
        value = node.inputs[index] if index < len(node.inputs) else None
        if value is not None and not value.is_initializer():
            return f"its input {index} ('{value.name}') is computed, not constant"
    for value in (*node.inputs, *node.outputs):
        if value is None:
            continue
        shape = static_shape(value)
        if shape is None:
            return f"the shape of '{value.name}' is not known at these sizes"
        if 0 in shape:
            return f"'{value.name}' is empty"
    if fused_inputs is not None and len(node.inputs) != fused_inputs:
        return f"only a node of {fused_inputs} inputs can be fused"
    return ""


def _cpu_preferred(nodes: list[ir.Node], kernels: Found) -> set[ir.Node]:
    """Find nodes with a kernel that only compute on CPU data, mostly shape arithmetic."""
    on_cpu: set[ir.Value] = set()
    reached: set[ir.Node] = set()
    preferred: set[ir.Node] = set()
    for node in nodes:
        if node.op_type in _ON_HOST and kernels[node][0]:
            on_cpu.update(node.outputs)
            reached.update(use.node for output in node.outputs for use in output.uses())
    for node in nodes:
        if node not in reached:
            continue
        kernel, _, _ = kernels[node]
        if kernel is None or _all_on_cpu(node, on_cpu, kernel.host_inputs):
            if kernel is not None:
                preferred.add(node)
            on_cpu.update(node.outputs)
            reached.update(use.node for output in node.outputs for use in output.uses())
    return preferred


def _all_on_cpu(node: ir.Node, on_cpu: set[ir.Value], host_inputs: frozenset[int]) -> bool:
    for index, value in enumerate(node.inputs):
        if value is None:
            continue
        if value.dtype in (ir.DataType.FLOAT16, ir.DataType.BFLOAT16):
            return False
        if value.is_graph_input() or _is_small_initializer(value):
            continue
        if value not in on_cpu or index in host_inputs:
            return False
    return True


def _is_small_initializer(value: ir.Value) -> bool:
    return (
        value.const_value is not None
        and value.is_initializer()
        and value.const_value.size <= SMALL_INITIALIZER
    )


def _shape_only(nodes: list[ir.Node]) -> set[ir.Node]:
    """Find nodes that only compute on shapes: small integers from Shape or Size."""
    found: set[ir.Node] = set()
    for node in nodes:
        if node.op_type in _ON_HOST:
            found.add(node)
            continue
        sources = [value for value in node.inputs if value is not None and not value.is_initializer()]
        integer = all(
            output.dtype in (ir.DataType.INT64, ir.DataType.INT32, ir.DataType.BOOL)
            for output in node.outputs
        )
        if sources and integer and all(value.producer() in found for value in sources):
            found.add(node)
    return found


class _Partitions:
    """Partitions (fused graphs), built up in node order.

    A node joins the open partitions of its inputs and merges them. A node outside a partition that
    reads from a graph that is then closed, so that no cycle between steps can come about.
    """

    def __init__(self) -> None:
        self._parent: list[int] = []
        self._closed: set[int] = set()
        self._home: dict[ir.Value, int] = {}

    def root(self, number: int) -> int:
        while self._parent[number] != number:
            number = self._parent[number]
        return number

    def add_fused(self, node: ir.Node) -> int:
        homes = [
            self.root(self._home[value]) for value in node.inputs if value is not None and value in self._home
        ]
        open_homes = list(dict.fromkeys(home for home in homes if home not in self._closed))
        if not open_homes:
            number = self._new()
        else:
            number, *others = open_homes
            for other in others:
                self._parent[other] = number
        self._settle(node, number)
        return number

    def add_single(self, node: ir.Node) -> None:
        for value in node.inputs:
            if value is not None and value in self._home:
                self._closed.add(self.root(self._home[value]))
        number = self._new()
        self._closed.add(number)
        self._settle(node, number)

    def _new(self) -> int:
        self._parent.append(len(self._parent))
        return len(self._parent) - 1

    def _settle(self, node: ir.Node, number: int) -> None:
        for output in node.outputs:
            self._home[output] = number

"""Cut a decoder's graph into pieces that run over tiles.

A group norm needs the statistics of the whole image, so pieces end where one begins: a piece runs over all
tiles and gathers the statistics of what the next piece normalizes. What is before the first Resize runs
whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass

import onnx_ir as ir

from conversions.errors import ConversionError
from conversions.passes.fuse_group_norm import fuse_group_norm
from conversions.tiling.piece_graph import PieceGraph
from conversions.tiling.spread import Spread, refused, spread

_HEAD = -1


@dataclass(frozen=True, kw_only=True)
class Norm:
    """A group norm that is given its statistics.

    Attributes:
        name: Begins the names of the inputs of its piece that hold its factor and its summand.
        value: What it normalizes.
        groups: Groups of channels.
        epsilon: Added to their variance.
    """

    name: str
    value: str
    groups: int
    epsilon: float


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A part of a graph that runs over tiles.

    Attributes:
        model: Its graph; the weights stay where the whole graph's are.
        inputs: Values that it takes windows of, by name, with their pixels for each pixel of a window.
        outputs: Values that it gives, likewise.
        halo: Pixels at an edge of a window that are wrong where the image goes on.
        scale: A window's pixels for each pixel of the values that the pieces begin with.
        norms: The norms in it.
        measured: Outputs whose statistics it gives.
        last_read: Values that no later piece reads.
    """

    model: ir.Model
    inputs: Mapping[str, int]
    outputs: Mapping[str, int]
    halo: int
    scale: int
    norms: tuple[Norm, ...]
    measured: tuple[str, ...]
    last_read: frozenset[str]


@dataclass(frozen=True, kw_only=True)
class Cut:
    """A graph in parts.

    Attributes:
        head: Runs whole; its outputs are what the pieces begin with.
        pieces: In their order.
        scale: Pixels of the graph's output for each pixel of the head's.
    """

    head: ir.Model
    pieces: tuple[Piece, ...]
    scale: int

    def window(self, piece: Piece, side: int) -> int:
        """Return how many pixels a window of a piece may read, for tiles of a number of the output's."""
        return max(side * piece.scale // self.scale, 1)


def cut(model: ir.Model) -> Cut:
    """Cut a graph that makes an image larger.

    Args:
        model: The graph in the form that packages hold; its weights may have no values. It stays as it is.

    Raises:
        ConversionError: ``tiling.operator``, ``tiling.no_resize``: it cannot be cut.
    """
    whole = model.clone()
    fuse_group_norm(whole)
    first = next((node for node in whole.graph if node.op_type == "Resize"), None)
    if first is None:
        raise ConversionError("tiling.no_resize", "the decoder has no Resize from which tiles could begin.")
    levels = _levels(whole.graph, first)
    made: list[Piece] = []
    wanted: dict[int, dict[str, ir.Value]] = {}
    for value in whole.graph.outputs:
        wanted.setdefault(levels.get(value, _HEAD), {})[str(value.name)] = value
    last = max(levels.values())
    parts = {level: _Part.of(whole.graph, level, levels, wanted) for level in range(last, _HEAD - 1, -1)}
    scales = _scales(parts, last)
    normalized = {_normalized(node) for node in whole.graph if node.op_type == "GroupNorm"}
    read_later: set[str] = {str(value.name) for value in whole.graph.outputs}
    for level in range(last, _HEAD, -1):
        piece = _piece(whole, parts[level], scales, normalized, read_later)
        read_later |= set(piece.inputs)
        made.append(piece)
    head = PieceGraph(whole)
    for value in whole.graph.inputs:
        head.take(value, value.shape)
    head.write(parts[_HEAD].nodes)
    for value in parts[_HEAD].outputs:
        head.give(value)
    return Cut(
        head=head.model(),
        pieces=tuple(reversed(made)),
        scale=max(scales[value] for value in whole.graph.outputs),
    )


def _levels(graph: ir.Graph, first: ir.Node) -> dict[ir.Value, int]:
    """Number the pieces in which values are computed; what is missing is in the head."""
    levels: dict[ir.Value, int] = {}
    for node in graph:
        behind = [levels[value] for value in node.inputs if value in levels]
        if node is first:
            behind.append(0)
        if behind:
            level = max(behind) + (node.op_type == "GroupNorm")
            levels.update((value, level) for value in node.outputs)
    return levels


@dataclass(frozen=True, kw_only=True)
class _Part:
    """Nodes of one part, and the values that it takes from and gives to others."""

    nodes: tuple[ir.Node, ...]
    inputs: tuple[ir.Value, ...]
    outputs: tuple[ir.Value, ...]

    @classmethod
    def of(
        cls,
        graph: ir.Graph,
        level: int,
        levels: Mapping[ir.Value, int],
        wanted: dict[int, dict[str, ir.Value]],
    ) -> _Part:
        """Find a part from what is wanted of it, and note what it wants of others."""
        outputs = tuple(wanted.get(level, {}).values())
        nodes: set[ir.Node] = set()
        inputs: dict[str, ir.Value] = {}
        pending = list(outputs)
        while pending:
            value = pending.pop()
            node = value.producer()
            if value.is_initializer() or (node is None and level == _HEAD):
                continue
            # A Cast is done again in each part that wants it, so that the smaller type is kept.
            if node is not None and (levels.get(value, _HEAD) == level or node.op_type == "Cast"):
                if node not in nodes:
                    nodes.add(node)
                    pending += [each for each in node.inputs if each is not None]
            else:
                inputs[str(value.name)] = value
        for name, value in inputs.items():
            wanted.setdefault(levels.get(value, _HEAD), {})[name] = value
        return cls(
            nodes=tuple(node for node in graph if node in nodes),
            inputs=tuple(inputs.values()),
            outputs=outputs,
        )


def _scales(parts: Mapping[int, _Part], last: int) -> dict[ir.Value, int]:
    """Return the scale of every value behind the head."""
    scales = dict.fromkeys(parts[_HEAD].outputs, 1)
    for level in range(last + 1):
        for value, found in _spreads(parts[level].nodes, scales).items():
            scales[value] = found.scale
    return scales


def _spreads(nodes: Iterable[ir.Node], scales: Mapping[ir.Value, int]) -> dict[ir.Value, Spread]:
    """Follow windows of values through nodes."""
    found: dict[ir.Value, Spread] = {}
    for node in nodes:
        inputs = [
            found.get(value) or Spread(scale=scales[value])
            for value in node.inputs
            if value is not None and (value in found or value in scales)
        ]
        if not inputs or len(node.outputs) != 1:
            raise refused(node)
        found[node.outputs[0]] = spread(node, tuple(inputs))
    return found


def _piece(
    whole: ir.Model,
    part: _Part,
    scales: Mapping[ir.Value, int],
    normalized: Set[ir.Value],
    read_later: Set[str],
) -> Piece:
    scale = min(scales[value] for value in part.inputs)
    spreads = _spreads(part.nodes, {value: scales[value] for value in part.inputs})
    graph = PieceGraph(whole)
    for value in part.inputs:
        graph.take_window(value, scales[value] // scale)
    norms = []
    for node in part.nodes:
        if node.op_type == "GroupNorm":
            source = _normalized(node)
            norm = Norm(
                name=str(node.outputs[0].name),
                value=str(source.name),
                groups=int(node.attributes.get_int("groups", 0) or 0),
                epsilon=float(node.attributes.get_float("epsilon", 1e-5) or 0.0),
            )
            graph.write_norm(node, norm.name)
            norms.append(norm)
        else:
            graph.write([node])
    measured = []
    for value in part.outputs:
        graph.give(value)
        if value in normalized:
            graph.measure(value, scales[value] // scale)
            measured.append(str(value.name))
    times = {str(value.name): scales[value] // scale for value in part.outputs}
    return Piece(
        model=graph.model(),
        inputs={str(value.name): scales[value] // scale for value in part.inputs},
        outputs=times,
        halo=max(-(-spreads[value].margin // times[str(value.name)]) for value in part.outputs),
        scale=scale,
        norms=tuple(norms),
        measured=tuple(measured),
        last_read=frozenset(str(value.name) for value in part.inputs) - read_later,
    )


def _normalized(norm: ir.Node) -> ir.Value:
    """Return what a norm normalizes, before any Cast."""
    value = norm.inputs[0]
    while value is not None and (node := value.producer()) is not None and node.op_type == "Cast":
        value = node.inputs[0]
    if value is None:
        raise refused(norm)
    return value

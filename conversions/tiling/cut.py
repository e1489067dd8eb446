"""Cut the graph of an autoencoder's half into pieces that run over tiles.

A group norm needs the statistics of the whole image, so pieces end where one begins: a piece runs over all
tiles and gathers the statistics of what the next piece normalizes. The low resolutions run on the whole
image: what comes before a decoder's first Resize, or after an encoder's last convolution with a stride.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Set
from dataclasses import dataclass
from math import prod

import onnx_ir as ir

from conversions.errors import ConversionError
from conversions.passes.fuse_group_norm import fuse_group_norm
from conversions.tiling.fold_pad import fold_pad
from conversions.tiling.piece_graph import PieceGraph, channels
from conversions.tiling.spread import Spread, refused, spread, stride

_HEAD = -1


@dataclass(frozen=True, kw_only=True)
class Norm:
    """A group norm that is given its statistics.

    Attributes:
        name: Start of the names of its piece's inputs that hold its factor and its summand.
        value: Name of the value that it normalizes.
        groups: Groups of channels.
        epsilon: Added to their variance.
        weight: Weight of each channel; None in a graph without values.
        bias: Bias of each channel, likewise.
    """

    name: str
    value: str
    groups: int
    epsilon: float
    weight: ir.TensorProtocol | None
    bias: ir.TensorProtocol | None


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A part of a graph that runs over tiles.

    Attributes:
        model: Its graph; the weights stay where the whole graph's are.
        inputs: Values that it reads windows of, by name, with their pixels for each pixel of a window.
        outputs: Values that it computes, likewise.
        halo: Pixels at an edge of a window that are wrong where the image goes on.
        scale: Pixels of a window for each pixel of the graph's lowest resolution.
        norms: The norms in it.
        measured: Outputs whose statistics it also computes.
        last_read: Inputs that no later piece reads.
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
        head: Part that runs first, on the whole image; None where the pieces read the graph's input.
        pieces: Parts that run over tiles, in their order.
        foot: Part that runs last, on the whole image; None where the pieces compute the graph's output.
        first_scale: Pixels of the first piece's input for each pixel of the lowest resolution in the pieces.
        scale: Pixels of the highest resolution, the image's, likewise.
        dimensions: Names of batch, height and width of the graph's input, for pieces that read it.
    """

    head: ir.Model | None
    pieces: tuple[Piece, ...]
    foot: ir.Model | None
    first_scale: int
    scale: int
    dimensions: tuple[str, str, str]

    def window(self, piece: Piece, side: int) -> int:
        """Return how many pixels a window of a piece may read, for tiles of ``side`` pixels of the image."""
        return max(side * piece.scale // self.scale, 1)


def cut(model: ir.Model) -> Cut:
    """Cut a graph that makes an image larger, a decoder's, or smaller, an encoder's.

    Args:
        model: The graph in the form that packages hold; its weights may have no values. It stays as it is.

    Raises:
        ConversionError: ``tiling.operator``, ``tiling.no_resize``: it cannot be cut.
    """
    whole = model.clone()
    fuse_group_norm(whole)
    fold_pad(whole)
    graph = whole.graph
    tiled, strides = _tiled(graph)
    levels = _levels(graph, tiled)
    foot = max(levels[value] for node in tiled for value in node.outputs) + 1
    wanted: dict[int, dict[str, ir.Value]] = {}
    for value in graph.outputs:
        wanted.setdefault(levels.get(value, _HEAD), {})[str(value.name)] = value
    parts = {level: _Part.of(graph, level, levels, wanted) for level in range(foot, _HEAD - 1, -1)}
    scales = dict.fromkeys(parts[_HEAD].outputs, strides)
    for level in range(foot):
        scales |= {value: each.scale for value, each in _spreads(parts[level].nodes, scales).items()}
    normalized = {_normalized(node) for node in tiled if node.op_type == "GroupNorm"}
    read_later = {str(value.name) for value in (*graph.outputs, *parts[foot].inputs)}
    pieces: list[Piece] = []
    for level in range(foot - 1, _HEAD, -1):
        pieces.insert(0, _piece(whole, parts[level], scales, normalized, read_later))
        read_later |= set(pieces[0].inputs)
    return Cut(
        head=_head(whole, parts[_HEAD]),
        pieces=tuple(pieces),
        foot=_foot(whole, parts[foot]),
        first_scale=strides,
        scale=max(scales.values()),
        dimensions=_dimensions(graph.inputs[0]),
    )


def _tiled(graph: ir.Graph) -> tuple[list[ir.Node], int]:
    """Return the nodes of the high resolutions, and how many times smaller they make an image."""
    first = next((node for node in graph if node.op_type == "Resize"), None)
    if first is not None:
        reached: set[ir.Value] = set(first.outputs)
        for node in graph:
            if node is first or any(value in reached for value in node.inputs):
                reached.update(node.outputs)
        return [node for node in graph if node.outputs[0] in reached], 1
    last = next((node for node in reversed(graph) if node.op_type == "Conv" and stride(node) > 1), None)
    if last is None:
        raise ConversionError("tiling.no_resize", "no Resize and no convolution with a stride is in it.")
    before: set[ir.Node | None] = {last}
    for node in reversed(graph):
        if node in before:
            before.update(value.producer() for value in node.inputs if value is not None)
    nodes = [node for node in graph if node in before]
    return nodes, prod(stride(node) for node in nodes if node.op_type == "Conv")


def _levels(graph: ir.Graph, tiled: Collection[ir.Node]) -> dict[ir.Value, int]:
    """Number the pieces in which values are computed, and the foot after them; others are in the head."""
    levels: dict[ir.Value, int] = {}
    for node in tiled:
        behind = max((levels[value] for value in node.inputs if value in levels), default=0)
        levels.update((value, behind + (node.op_type == "GroupNorm")) for value in node.outputs)
    foot = max(levels.values()) + 1
    within = set(tiled)
    for node in graph:
        if node not in within and any(value in levels for value in node.inputs):
            levels.update((value, foot) for value in node.outputs)
    return levels


def _head(whole: ir.Model, part: _Part) -> ir.Model | None:
    if not part.nodes:
        return None
    graph = PieceGraph(whole)
    for value in whole.graph.inputs:
        graph.take(value, value.shape)
    graph.write(part.nodes)
    for value in part.outputs:
        graph.give(value)
    return graph.model()


def _foot(whole: ir.Model, part: _Part) -> ir.Model | None:
    if not part.nodes:
        return None
    graph = PieceGraph(whole)
    for value in part.inputs:
        graph.take_window(value, 1)
    graph.write(part.nodes)
    for value in part.outputs:
        graph.give(value)
    return graph.model()


def _dimensions(image: ir.Value) -> tuple[str, str, str]:
    channels(image)
    assert image.shape is not None
    batch, _, height, width = (str(getattr(dim, "value", dim)) for dim in image.shape)
    return batch, height, width


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
    spreads = _spreads(part.nodes, {value: scales[value] for value in part.inputs})
    # Windows begin at whole pixels of the lowest resolution in the piece, which may lie between its ends.
    scale = min([*(each.scale for each in spreads.values()), *(scales[value] for value in part.inputs)])
    graph = PieceGraph(whole)
    for value in part.inputs:
        graph.take_window(value, scales[value] // scale)
    norms = []
    for node in part.nodes:
        if node.op_type == "GroupNorm":
            norm = _norm(node)
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


def _norm(node: ir.Node) -> Norm:
    weight, bias = (value.const_value if value is not None else None for value in node.inputs[1:3])
    return Norm(
        name=str(node.outputs[0].name),
        value=str(_normalized(node).name),
        groups=int(node.attributes.get_int("groups", 0) or 0),
        epsilon=float(node.attributes.get_float("epsilon", 1e-5) or 0.0),
        weight=weight,
        bias=bias,
    )


def _normalized(norm: ir.Node) -> ir.Value:
    """Return what a norm normalizes, before any Cast."""
    value = norm.inputs[0]
    while value is not None and (node := value.producer()) is not None and node.op_type == "Cast":
        value = node.inputs[0]
    if value is None:
        raise refused(norm)
    return value

"""Forecast the memory that a package needs, from its graphs: weights and live activations."""

from __future__ import annotations

from collections import deque
from collections.abc import Set
from dataclasses import dataclass, replace
from math import prod

import onnx_ir as ir

from conversions.pipeline_graphs import PipelineGraphs, SizedGraph
from conversions.providers.table import Provider, provider_for
from conversions.recipe import ImageSize
from conversions.shape_inference import attention_scores_shape, static_shape

CONTEXT_BYTES = 512 * 2**20
"""Memory that a program takes of a GPU before it holds any weights: its context, and its libraries' kernels.

With it and the sessions' own bytes the submodels of SD 1.4 take 0.91 to 1.06 of the forecast on CUDA, at
512x512 to 1024x1024 (docs/explanation/providers.md).
"""

SESSION_BYTES = 256 * 2**20
"""Memory of a session besides weights and activations: graph, staging buffers, workspaces.

An estimate: sessions of SD 1.4's submodels on the CPU took 0.4 to 0.97 of the forecast, and the VAE
encoder at 768 pixels 1.11 (tests/benchmarks/forecast.py, float16, 512 and 768 pixels).
"""

_VIEWS = frozenset({"Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity"})
"""Operators whose result shares its input's memory."""

_SIDES = tuple(range(256, 2049, 64))


@dataclass(frozen=True, kw_only=True)
class SessionNeed:
    """Memory that one session needs for one image size.

    Attributes:
        weights_bytes: Size of its weights.
        activation_bytes: What the provider's sessions hold for the activations that are live at once, inputs
            and outputs included.
        float32_weights_bytes: Size of the largest float32 copy that the CPU makes of a half-precision weight;
            it has one at a time.
        float32_activation_bytes: As ``activation_bytes``, on the CPU, which computes in float32.
    """

    weights_bytes: int
    activation_bytes: int
    float32_weights_bytes: int
    float32_activation_bytes: int

    @property
    def device_bytes(self) -> int:
        """Memory of a device."""
        return self.weights_bytes + self.activation_bytes + SESSION_BYTES

    @property
    def cpu_weights_bytes(self) -> int:
        """Main memory for the weights on the CPU."""
        return self.weights_bytes + self.float32_weights_bytes

    @property
    def cpu_bytes(self) -> int:
        """Main memory on the CPU, the pages of the weight file included."""
        return self.cpu_weights_bytes + self.float32_activation_bytes + SESSION_BYTES


@dataclass(frozen=True, kw_only=True)
class SubmodelNeed:
    """Memory that one submodel needs for one image size.

    Attributes:
        submodel: Its name.
        sessions: What its sessions need, of which one is open at a time: a single one where it runs whole,
            one for each part where it runs in tiles.
        kept_bytes: Main memory for the results between its parts, where it runs in tiles.
    """

    submodel: str
    sessions: tuple[SessionNeed, ...]
    kept_bytes: int = 0

    @property
    def on_device(self) -> SessionNeed:
        """The session that needs most of a device."""
        return max(self.sessions, key=lambda session: session.device_bytes)

    @property
    def on_cpu(self) -> SessionNeed:
        """The session that needs most main memory on the CPU."""
        return max(self.sessions, key=lambda session: session.cpu_bytes)

    @property
    def total_bytes(self) -> int:
        """Memory of a device for the submodel alone."""
        return self.on_device.device_bytes

    @property
    def cpu_bytes(self) -> int:
        """Main memory when the submodel runs on the CPU, what it keeps between parts included."""
        return self.on_cpu.cpu_bytes + self.kept_bytes


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """Memory that a package needs for one image size.

    Attributes:
        width: Of the image, in pixels.
        height: Of the image, in pixels.
        needs: One entry per submodel.
    """

    width: int
    height: int
    needs: tuple[SubmodelNeed, ...]

    @property
    def device_bytes(self) -> int:
        """Device memory with every submodel loaded: each session's allocator keeps what it has had once."""
        return CONTEXT_BYTES + sum(need.total_bytes for need in self.needs)

    @property
    def staged_bytes(self) -> int:
        """Device memory when submodels are loaded and unloaded one at a time."""
        return CONTEXT_BYTES + max((need.total_bytes for need in self.needs), default=0)

    @property
    def host_bytes(self) -> int:
        """Peak main memory, while the largest submodel is loaded onto the device.

        Its weights exist twice at that moment: as read from disk and in the session.
        """
        return 2 * max((need.on_device.weights_bytes for need in self.needs), default=0) + SESSION_BYTES

    @property
    def cpu_bytes(self) -> int:
        """Main memory when every submodel runs on the CPU: all weights, and the largest activations."""
        weights = sum(need.on_cpu.cpu_weights_bytes for need in self.needs)
        running = (need.on_cpu.float32_activation_bytes + need.kept_bytes for need in self.needs)
        return weights + max(running, default=0) + SESSION_BYTES

    @property
    def staged_cpu_bytes(self) -> int:
        """Main memory when submodels run on the CPU, loaded and unloaded one at a time."""
        return max((need.cpu_bytes for need in self.needs), default=0)

    def without(self, submodels: Set[str]) -> Forecast:
        """Return the forecast for a device on which some submodels do not run."""
        return replace(self, needs=tuple(need for need in self.needs if need.submodel not in submodels))

    def joined(self, other: Forecast) -> Forecast:
        """Return the forecast for the submodels of both, for the same images."""
        return replace(self, needs=self.needs + other.needs)

    def updated(self, other: Forecast) -> Forecast:
        """Return the forecast with another's needs in place of those of the same submodels."""
        newer = {need.submodel: need for need in other.needs}
        return replace(self, needs=tuple(newer.get(need.submodel, need) for need in self.needs))

    def fits(self, free_bytes: int) -> bool:
        """Whether a device with this much free memory can make the image, at least one submodel at a time."""
        return self.staged_bytes <= free_bytes

    def as_dict(self) -> dict[str, object]:
        """Plain data for JSON."""
        return {
            "width": self.width,
            "height": self.height,
            "device_bytes": self.device_bytes,
            "staged_bytes": self.staged_bytes,
            "host_bytes": self.host_bytes,
            "cpu_bytes": self.cpu_bytes,
            "submodels": {
                need.submodel: {
                    "weights_bytes": need.on_device.weights_bytes,
                    "activation_bytes": need.on_device.activation_bytes,
                }
                for need in self.needs
            },
        }


def forecast(graphs: PipelineGraphs, size: ImageSize) -> Forecast:
    """Forecast the memory that images need.

    Args:
        graphs: The submodels' graphs; weights may have no values. What their provider's sessions make of them
            is counted.
        size: Of the images, and how many are made at once.

    Raises:
        ConversionError: The size is one that a graph cannot take.
    """
    return Forecast(
        width=size.width,
        height=size.height,
        needs=tuple(_need(graphs, name, size) for name in graphs.models),
    )


def _need(graphs: PipelineGraphs, submodel: str, size: ImageSize) -> SubmodelNeed:
    parts = graphs.parts(submodel, size)
    denoiser = graphs.roles[submodel] == "denoiser"
    sessions = tuple(_session_need(part, denoiser=denoiser) for part in parts.graphs)
    return SubmodelNeed(submodel=submodel, sessions=sessions, kept_bytes=parts.kept_bytes)


def _session_need(sized: SizedGraph, *, denoiser: bool) -> SessionNeed:
    fixed, halves = sized.fixed(), filter(_is_half, sized.model.graph.initializers.values())
    return SessionNeed(
        weights_bytes=weights_bytes(fixed),
        activation_bytes=_held_bytes(fixed, sized.provider, denoiser=denoiser),
        float32_weights_bytes=max((_bytes_of(value, wide=True) for value in halves), default=0),
        float32_activation_bytes=_held_bytes(fixed, provider_for("cpu"), denoiser=denoiser, wide=True),
    )


def _held_bytes(fixed: ir.Model, provider: Provider, *, denoiser: bool, wide: bool = False) -> int:
    """Return what a provider's session holds for a graph's activations."""
    factor = provider.activation_factor * (provider.denoiser_factor if denoiser else 1)
    peak = peak_activation_bytes(
        fixed, wide=wide, held_launches=provider.held_launches, flash_attention=provider.flash_attention
    )
    return int(factor * peak)


def weights_bytes(model: ir.Model) -> int:
    """Return the size of a graph's weights as they are stored."""
    return sum(_bytes_of(value) for value in model.graph.initializers.values())


def largest_square(graphs: PipelineGraphs, free_bytes: int) -> int:
    """Return the side of the largest square image that fits a device, in pixels; 0 when none does.

    Args:
        graphs: The submodels' graphs.
        free_bytes: Free memory of the device.
    """
    low, high = 0, len(_SIDES)
    while low < high:
        middle = (low + high) // 2
        side = _SIDES[middle]
        if forecast(graphs, ImageSize(width=side, height=side)).fits(free_bytes):
            low = middle + 1
        else:
            high = middle
    return _SIDES[low - 1] if low else 0


def peak_activation_bytes(
    model: ir.Model, *, wide: bool = False, held_launches: int = 0, flash_attention: bool = False
) -> int:
    """Return the most bytes alive at once while a graph with fixed shapes runs in its order.

    A tensor is live from the node that produces it to its last reader.

    Args:
        model: The graph.
        wide: Count half precision as float32, in which the CPU computes.
        held_launches: Number of further nodes that have to run until a tensor's memory is given back.
        flash_attention: Whether attention keeps no scores, unless it has a mask or a bias. Otherwise they are
            held while it runs, [batch, heads, length, sequence].
    """
    nodes = list(model.graph)
    owner = _owners(nodes)
    last_use: dict[ir.Value, int] = {}
    for number, node in enumerate(nodes):
        for value in node.inputs:
            if value is not None and not value.is_initializer():
                last_use[owner.get(value, value)] = number
    for value in model.graph.outputs:
        last_use[owner.get(value, value)] = len(nodes)
    ending: dict[int, list[ir.Value]] = {}
    for value, number in last_use.items():
        ending.setdefault(number, []).append(value)
    alive = sum(_bytes_of(value, wide=wide) for value in model.graph.inputs)
    peak = alive
    held = deque([0] * held_launches)
    for number, node in enumerate(nodes):
        made = [value for value in node.outputs if owner.get(value, value) is value]
        alive += sum(_bytes_of(value, wide=wide) for value in made)
        scores = 0 if flash_attention and _is_plain(node) else _scores_bytes(node, wide=wide)
        peak = max(peak, alive + scores)
        ended = sum(_bytes_of(value, wide=wide) for value in ending.get(number, []))
        if made:
            held.append(ended)
            alive -= held.popleft()
        elif held:  # a view launches nothing
            held[-1] += ended
        else:
            alive -= ended
    return peak


def _owners(nodes: list[ir.Node]) -> dict[ir.Value, ir.Value]:
    """Map the results of views to the tensor whose memory they share."""
    owner: dict[ir.Value, ir.Value] = {}
    for node in nodes:
        source = node.inputs[0] if node.inputs else None
        if node.op_type in _VIEWS and source is not None and not source.is_initializer():
            owner[node.outputs[0]] = owner.get(source, source)
    return owner


def _is_plain(attention: ir.Node) -> bool:
    """Whether a MultiHeadAttention has only query, key and value; kernels without scores want that."""
    more = any(value is not None for value in attention.inputs[3:])
    return not more and not attention.attributes.get_int("unidirectional", 0)


def _scores_bytes(node: ir.Node, *, wide: bool) -> int:
    scores = attention_scores_shape(node) if node.op_type == "MultiHeadAttention" else None
    query = node.inputs[0] if node.inputs else None
    return 0 if scores is None or query is None else prod(scores) * _element_bytes(query, wide=wide)


def _bytes_of(value: ir.Value, *, wide: bool = False) -> int:
    shape = static_shape(value)
    return 0 if shape is None else prod(shape) * _element_bytes(value, wide=wide)


def _is_half(value: ir.Value) -> bool:
    return value.dtype in (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)


def _element_bytes(value: ir.Value, *, wide: bool) -> int:
    if wide and _is_half(value):
        return 4
    return 4 if value.dtype is None else max(1, round(value.dtype.itemsize))

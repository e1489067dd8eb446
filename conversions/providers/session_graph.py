"""Adapt a package's graph to a provider: replace operators that it lacks, fuse for those that it has."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from conversions.providers.table import Provider

if TYPE_CHECKING:
    import onnx_ir as ir
    from numpy.typing import NDArray

Edit = Callable[["ir.Model"], object]
"""Changes a graph in place, for one session; what it returns is not used."""

_CONCERNS: Mapping[str, tuple[bytes, ...]] = {
    "argmax_in_float": (b"ArgMax",),
    "drop_allowzero": (b"allowzero",),
    "expand_attention": (b"MultiHeadAttention",),
    "expand_fused_matmul": (b"FusedMatMul",),
    "expand_group_norm": (b"GroupNorm",),
    "fuse_bias_split_gelu": (b"Split",),
    "fuse_group_norm": (b"InstanceNormalization",),
    "fuse_skip_group_norm": (b"GroupNorm", b"InstanceNormalization"),
    "fuse_skip_layer_norm": (b"LayerNormalization",),
    "fused_matmul_to_gemm": (b"FusedMatMul",),
    "group_norm_channels_last": (b"GroupNorm", b"InstanceNormalization"),
}
"""Operators that each ``at_load`` pass rewrites; the pass is skipped when a graph has none of them."""


@dataclass(frozen=True, kw_only=True)
class SessionGraph:
    """Model and configuration for ``onnxruntime.InferenceSession``.

    Attributes:
        model: The file's path, or a serialized graph whose weights stay in the package's own file.
        config: Entries for ``SessionOptions.add_session_config_entry``.
        removed: Initializers that the edits have left without a reader.
        computed: Initializers that the edits have promised; ``model``, which may have 2 GB, is without them.
    """

    model: str | bytes
    config: dict[str, str] = field(default_factory=dict)
    removed: frozenset[str] = frozenset()
    computed: Mapping[str, NDArray[Any]] = field(default_factory=dict)


def session_graph(
    graph: Path, provider: Provider, edits: Sequence[Edit] = (), part: ir.Model | None = None
) -> SessionGraph:
    """Return a graph as a provider can run it; the weights are never copied.

    Rules:
        1. Every graph gets the passes that the provider's row names in ``at_load``, whatever target it was
           converted for, and then the edits.
        2. A graph that none of them changes is handed over as its file.

    Args:
        graph: The ONNX file of a submodel.
        provider: Row of the provider that is to run it.
        edits: Changes of this session alone, such as computing in float32.
        part: A part of the graph to use instead of the whole; its weights are in the same files.
    """
    passes: Sequence[str] = provider.at_load
    if part is None:
        # Weights are in another file, so searching this one for a name is much faster than parsing it.
        content = graph.read_bytes()
        passes = [name for name in passes if any(operator in content for operator in _CONCERNS[name])]
        if not passes and not edits:
            return SessionGraph(model=str(graph))

    import onnx_ir as ir

    model = ir.load(graph) if part is None else part.clone()
    changes = sum(getattr(import_module(f"conversions.passes.{name}"), name)(model) for name in passes)
    if not changes and not edits and part is None:
        return SessionGraph(model=str(graph))
    before = set(model.graph.initializers)
    for edit in edits:
        edit(model)
    computed = _computed(model)
    return SessionGraph(
        model=ir.serde.serialize_model(model).SerializeToString(),
        # Source: onnxruntime_session_options_config_keys.h, for models that are loaded from memory.
        config={"session.model_external_initializers_file_folder_path": str(graph.parent)},
        removed=frozenset(before - set(model.graph.initializers)),
        computed=computed,
    )


def _computed(model: ir.Model) -> dict[str, NDArray[Any]]:
    """Compute the initializers that edits have promised; leave their names, types and shapes in the model."""
    import onnx_ir as ir

    promised: dict[str, ir.LazyTensor] = {}
    for name, value in model.graph.initializers.items():
        if isinstance(value.const_value, ir.LazyTensor):
            tensor = promised[name] = value.const_value
            # No such file is read: the session is given the array.
            value.const_value = ir.ExternalTensor(
                "computed", 0, tensor.nbytes, tensor.dtype, shape=tensor.shape, name=name
            )
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        arrays = pool.map(lambda tensor: tensor.numpy(), promised.values())
        return dict(zip(promised, arrays, strict=True))

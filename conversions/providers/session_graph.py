"""Adapt a package's graph to a provider: replace operators that it has no kernel for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

from conversions.providers.table import Provider

_REWRITTEN_OPERATORS: Mapping[str, tuple[bytes, ...]] = {
    "argmax_in_float": (b"ArgMax",),
    "expand_attention": (b"MultiHeadAttention",),
    "expand_group_norm": (b"GroupNorm",),
    "fuse_group_norm": (b"InstanceNormalization",),
    "group_norm_channels_last": (b"GroupNorm", b"InstanceNormalization"),
}
"""Operators that each ``at_load`` pass rewrites; the pass is skipped when a graph has none of them."""


@dataclass(frozen=True, kw_only=True)
class SessionGraph:
    """Model and configuration for ``onnxruntime.InferenceSession``.

    Attributes:
        model: The file's path, or a serialized graph whose weights stay in the package's own file.
        config: Entries for ``SessionOptions.add_session_config_entry``.
    """

    model: str | bytes
    config: dict[str, str] = field(default_factory=dict)


def session_graph(graph: Path, provider: Provider) -> SessionGraph:
    """Adapt a graph to a provider; the weights are never copied.

    Rules:
        1. Every graph gets the passes in the provider's ``at_load``, whatever target it was
           converted for.
        2. A graph that no pass changes is loaded from its file.

    Args:
        graph: The ONNX file of a submodel.
        provider: Provider that will run it.
    """
    # Weights are in another file, so searching this one for a name is much faster than parsing it.
    content = graph.read_bytes()
    passes = [
        name
        for name in provider.at_load
        if any(operator in content for operator in _REWRITTEN_OPERATORS[name])
    ]
    if not passes:
        return SessionGraph(model=str(graph))

    import onnx_ir as ir

    model = ir.load(graph)
    changes = sum(getattr(import_module(f"conversions.passes.{name}"), name)(model) for name in passes)
    if not changes:
        return SessionGraph(model=str(graph))
    return SessionGraph(
        model=ir.serde.serialize_model(model).SerializeToString(),
        # Source: onnxruntime_session_options_config_keys.h, for models that are loaded from memory.
        config={"session.model_external_initializers_file_folder_path": str(graph.parent)},
    )


def session_graph_in_fp32(graph: Path, provider: Provider) -> SessionGraph:
    """Adapt a float16 graph to a provider, computing in float32 on the same weight file.

    Args:
        graph: The ONNX file of a submodel.
        provider: Provider that will run it.
    """
    import onnx
    import onnx_ir as ir

    from conversions.passes.upcast_to_fp32 import upcast_to_fp32

    form = session_graph(graph, provider)
    proto = (
        onnx.ModelProto.FromString(form.model)
        if isinstance(form.model, bytes)
        else onnx.load(form.model, load_external_data=False)
    )
    model = ir.serde.deserialize_model(proto)
    upcast_to_fp32(model)
    return SessionGraph(
        model=ir.serde.serialize_model(model).SerializeToString(),
        config={**form.config, "session.model_external_initializers_file_folder_path": str(graph.parent)},
    )

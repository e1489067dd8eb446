"""A package's graph in the form that a provider can run: some fused operators have no kernel on the CPU."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from conversions.providers import provider_for

_WITH_FUSED_KERNEL = frozenset({"DmlExecutionProvider", "CUDAExecutionProvider"})


@dataclass(frozen=True, kw_only=True)
class Runnable:
    """What to hand to ``onnxruntime.InferenceSession``.

    Attributes:
        model: The file's path, or a serialized graph whose weights stay in the package's own file.
        config: Entries for ``SessionOptions.add_session_config_entry``.
    """

    model: str | bytes
    config: dict[str, str] = field(default_factory=dict)


def runnable(graph: Path, provider: str) -> Runnable:
    """Return a graph as a provider can run it; the weights are never copied.

    Rules:
        1. Without a kernel for com.microsoft.GroupNorm it is written out.
        2. A provider whose own graphs have attention written out gets that for every graph.

    Args:
        graph: The ONNX file of a submodel.
        provider: ONNX Runtime's name of the provider.
    """
    without_group_norm = provider not in _WITH_FUSED_KERNEL
    without_attention = "expand_attention" in provider_for(provider).passes
    # Weights lie in another file, so looking for a name in this one is far quicker than parsing it.
    content = graph.read_bytes()
    group_norm = without_group_norm and b"GroupNorm" in content
    attention = without_attention and b"MultiHeadAttention" in content
    if not (group_norm or attention):
        return Runnable(model=str(graph))

    import onnx_ir as ir

    from conversions.passes.expand_attention import expand_attention
    from conversions.passes.expand_group_norm import expand_group_norm

    model = ir.load(graph)
    expanded = (expand_group_norm(model) if group_norm else 0) + (expand_attention(model) if attention else 0)
    if not expanded:
        return Runnable(model=str(graph))
    return Runnable(
        model=ir.serde.serialize_model(model).SerializeToString(),
        # Source: onnxruntime_session_options_config_keys.h, for models that are loaded from memory.
        config={"session.model_external_initializers_file_folder_path": str(graph.parent)},
    )


def runnable_in_float32(graph: Path, provider: str) -> Runnable:
    """Return a float16 graph as a provider can run it, computing in float32 on the same weight file.

    Args:
        graph: The ONNX file of a submodel.
        provider: ONNX Runtime's name of the provider.
    """
    import onnx
    import onnx_ir as ir

    from conversions.passes.widen import widen

    form = runnable(graph, provider)
    proto = (
        onnx.ModelProto.FromString(form.model)
        if isinstance(form.model, bytes)
        else onnx.load(form.model, load_external_data=False)
    )
    model = ir.serde.deserialize_model(proto)
    widen(model)
    return Runnable(
        model=ir.serde.serialize_model(model).SerializeToString(),
        config={**form.config, "session.model_external_initializers_file_folder_path": str(graph.parent)},
    )

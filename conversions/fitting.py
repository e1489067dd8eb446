"""A package's graph as one provider can run it, the weights staying in the package's one file."""

from __future__ import annotations

from pathlib import Path

from conversions.providers import Provider


def fitted(graph: Path, provider: Provider) -> bytes | None:
    """Write out the fused operators of a graph that a provider has no kernel for.

    Rules:
        1. A provider whose graphs are not given com.microsoft.GroupNorm has no kernel for it: it is expanded.
        2. A provider with the pass ``expand_attention`` gets attention in plain operators.

    Args:
        graph: The ONNX file of a submodel.
        provider: Row of the provider table.

    Returns:
        The changed model, whose external data is still relative to the graph's folder; None when the file
        serves as it is.
    """
    attention = "expand_attention" in provider.passes
    group_norm = "fuse_group_norm" not in provider.passes
    # Weights lie in another file, so looking for a name in this one is far quicker than parsing it.
    content = graph.read_bytes()
    if not (attention and b"MultiHeadAttention" in content) and not (group_norm and b"GroupNorm" in content):
        return None

    import onnx_ir as ir

    from conversions.passes.expand_attention import expand_attention
    from conversions.passes.expand_group_norm import expand_group_norm

    model = ir.load(graph)
    expanded = 0
    if group_norm:
        expanded += expand_group_norm(model)
    if attention:
        expanded += expand_attention(model)
    return ir.to_proto(model).SerializeToString() if expanded else None

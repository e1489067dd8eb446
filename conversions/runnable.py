"""A package's graph in the form that a provider can run: some fused operators have no kernel on the CPU."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import onnx
import onnx_ir as ir

from conversions.passes.expand_group_norm import expand_group_norm

_FUSED = "GroupNorm"
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

    Args:
        graph: The ONNX file of a submodel.
        provider: ONNX Runtime's name of the provider.
    """
    if provider in _WITH_FUSED_KERNEL:
        return Runnable(model=str(graph))
    proto = onnx.load(graph, load_external_data=False)
    if not any(node.op_type == _FUSED for node in proto.graph.node):
        return Runnable(model=str(graph))
    model = ir.serde.deserialize_model(proto)
    expand_group_norm(model)
    return Runnable(
        model=ir.serde.serialize_model(model).SerializeToString(),
        # Source: onnxruntime_session_options_config_keys.h, for models that are loaded from memory.
        config={"session.model_external_initializers_file_folder_path": str(graph.parent)},
    )

"""Graphs without weights, found by what shapes them: shipped ones, those of this user, or traced anew."""

from __future__ import annotations

import hashlib
import json
import logging
import lzma
import os
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import onnx
import onnx_ir as ir

from conversions.graph_kind import Config, GraphKind

if TYPE_CHECKING:
    from conversions.graphs.trace import Weights

logger = logging.getLogger(__name__)

# Raise this when a change of the tracer or its passes makes stored graphs out of date.
GRAPH_VERSION = 2

SHIPPED_FOLDER = Path(__file__).parent / "shipped"
Origin = Literal["shipped", "cached", "to trace"]


def fingerprint(kind: GraphKind, config: Config) -> str:
    """Name the graph of a configuration: equal for all configurations that trace to the same graph.

    One graph serves both precisions and all targets; passes make the difference (see ``passes``).
    """
    identity = {
        "kind": kind.id,
        "version": kind.version,
        "variant": kind.variant,
        "tensors": [
            [spec.name, spec.dtype, list(spec.shape)]
            for spec in (*kind.inputs(config), *kind.outputs(config))
        ],
        "config": kind.graph_config(config),
        "graph_version": GRAPH_VERSION,
    }
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"))
    return f"{kind.id}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def locate(kind: GraphKind, config: Config, cache: Path | None) -> Origin:
    """Say where the graph of a configuration would come from."""
    usual = kind.with_usual_vocabulary(config)
    if usual is not None and (origin := locate(kind, usual, cache)) != "to trace":
        return origin
    name = _file_name(kind, config)
    if (SHIPPED_FOLDER / name).is_file():
        return "shipped"
    return "cached" if cache is not None and (cache / name).is_file() else "to trace"


def find(kind: GraphKind, config: Config, cache: Path | None) -> ir.Model | None:
    """Load the graph of a configuration if it is at hand.

    Args:
        kind: How the graph is made.
        config: The component's configuration.
        cache: This user's folder of traced graphs; None for no such folder.

    Returns:
        A new model whose weights have no values, or None. A damaged file in the cache counts as absent. A
        vocabulary of another size is a table with other rows in the graph of the usual one.
    """
    usual = kind.with_usual_vocabulary(config)
    if usual is not None and (model := find(kind, usual, cache)) is not None:
        kind.resize_vocabulary(model, config)
        return model
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    name = _file_name(kind, config)
    for folder in (SHIPPED_FOLDER, cache):
        if folder is None or not (folder / name).is_file():
            continue
        try:
            return unpack((folder / name).read_bytes(), kind, config)
        except (lzma.LZMAError, ValueError, EOFError, DecodeError, onnx.checker.ValidationError) as error:
            logger.warning(
                "the stored graph %s is damaged (%s) and will be traced anew", folder / name, error
            )
    return None


def keep(packed: bytes, kind: GraphKind, config: Config, cache: Path) -> Path:
    """Store a packed graph in a folder, whole or not at all."""
    cache.mkdir(parents=True, exist_ok=True)
    path = cache / _file_name(kind, config)
    # Another process may be keeping the same graph.
    partial = path.with_suffix(f".{os.getpid()}.partial")
    try:
        partial.write_bytes(packed)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def trace_and_pack(kind: GraphKind, config: Config, weights: Weights | None = None) -> bytes:
    """Trace a graph and pack it; meant for a process of its own, since it loads torch.

    Raises:
        ConversionError: ``config.untraceable``; the configuration cannot be built. As ``trace``.
    """
    from conversions.graphs.trace import trace
    from conversions.graphs.untraceable import naming_class

    with naming_class(kind.class_name):
        return pack(trace(kind, config, weights))


def demand_weights(kind: GraphKind, config: Config, weights: Weights) -> None:
    """Compare weights with those of the class, without a trace; meant for a process of its own.

    Raises:
        ConversionError: ``config.untraceable`` or ``weights.shape``.
    """
    from conversions.graphs.trace import compare_with_class
    from conversions.graphs.untraceable import naming_class

    with naming_class(kind.class_name):
        compare_with_class(kind, config, weights)


def pack(model: ir.Model) -> bytes:
    """Compress a graph without weights.

    Weights have no values, which ONNX cannot express; they are written as graph inputs behind the real ones.
    """
    copy = model.clone()
    weights = [value for value in copy.graph.initializers.values() if value.const_value is None]
    for value in weights:
        copy.graph.initializers.pop(str(value.name))
        copy.graph.inputs.append(value)
    return lzma.compress(ir.serde.serialize_model(copy).SerializeToString(), preset=9 | lzma.PRESET_EXTREME)


def unpack(packed: bytes, kind: GraphKind, config: Config) -> ir.Model:
    """Undo ``pack``: what follows the graph's own inputs are its weights."""
    proto = onnx.ModelProto.FromString(lzma.decompress(packed))
    model = ir.serde.deserialize_model(proto)
    real = len(kind.inputs(config))
    weights = list(model.graph.inputs)[real:]
    del model.graph.inputs[real:]
    model.graph.initializers.update({str(value.name): value for value in weights})
    return model


def _file_name(kind: GraphKind, config: Config) -> str:
    return f"{fingerprint(kind, config)}.onnx.xz"

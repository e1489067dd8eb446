"""Where a file's tensors lie, whatever its format: safetensors, GGUF or a package's graph, by its name."""

from __future__ import annotations

from dataclasses import replace

from conversions.checkpoint.gguf import read_gguf
from conversions.checkpoint.safetensors_header import StoredTensor, read_header, read_metadata
from conversions.checkpoint.storage import Storage


def read_tensors(storage: Storage, file: str) -> dict[str, StoredTensor]:
    """Read a file's table of tensors. Those of a graph lie in files beside it.

    Raises:
        ConversionError: As ``read_header`` and ``read_gguf``.
    """
    if file.endswith(".onnx"):
        return _read_graph(storage, file)
    return dict(read_gguf(storage, file).tensors) if _is_gguf(file) else read_header(storage, file)


def read_texts(storage: Storage, file: str) -> dict[str, str]:
    """Read a file's free texts, such as its title.

    Raises:
        ConversionError: As ``read_metadata`` and ``read_gguf``.
    """
    if not _is_gguf(file):
        return read_metadata(storage, file)
    found = read_gguf(storage, file).metadata
    return {key: value for key, value in found.items() if isinstance(value, str)}


def _read_graph(storage: Storage, file: str) -> dict[str, StoredTensor]:
    from conversions.weights.graph_weights import graph_weights

    path, folder = storage.path_of(file), file.rpartition("/")[0]
    assert path is not None  # packages are read where they lie
    return {
        name: replace(weight.tensor, file=f"{folder}/{weight.tensor.file}")
        for name, weight in graph_weights(path).items()
    }


def _is_gguf(file: str) -> bool:
    return file.lower().endswith(".gguf")

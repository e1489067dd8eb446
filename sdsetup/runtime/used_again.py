"""Find the adapters and embeddings of an image that is to be made again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from conversions.weights.lora.adapter_file import sha256_of
from conversions.weights.lora.request import AdapterRequest
from sdsetup.runtime.adapters import AppliedAdapter
from sdsetup.runtime.textual_inversion import AppliedEmbedding


@dataclass(frozen=True, kw_only=True)
class UsedAgain:
    """What an image was made with, as far as its files are still there, unchanged.

    Attributes:
        adapters: With their weights, in order.
        embeddings: In order.
        remarks: Which files are not, in sentences.
    """

    adapters: tuple[AdapterRequest, ...]
    embeddings: tuple[Path, ...]
    remarks: tuple[str, ...]


def used_again(adapters: Sequence[AppliedAdapter], embeddings: Sequence[AppliedEmbedding] = ()) -> UsedAgain:
    """Look for the files that an image was made with."""
    requests, paths, remarks = [], [], []
    for adapter in adapters:
        path = Path(adapter.path)
        option = f"--lora FILE:{adapter.weight:g}"
        remark = _remark(path, adapter.sha256, f"{path} (weight {adapter.weight:g})", option)
        if remark:
            remarks.append(remark)
        else:
            requests.append(AdapterRequest(path=path, weight=adapter.weight))
    for embedding in embeddings:
        path = Path(embedding.path)
        remark = _remark(path, embedding.sha256, str(path), "--textual-inversion FILE")
        if remark:
            remarks.append(remark)
        else:
            paths.append(path)
    return UsedAgain(adapters=tuple(requests), embeddings=tuple(paths), remarks=tuple(remarks))


def _remark(path: Path, sha256: str, label: str, option: str) -> str:
    """Say what is wrong with a file; empty where it is the same."""
    if not path.is_file():
        return (
            f"the image was made with {label}, which is gone: it will differ. "
            f"If you have the file elsewhere, add {option}."
        )
    if sha256_of(path) != sha256:
        return f"the image was made with {label}, which is another file now and is left out: it will differ."
    return ""

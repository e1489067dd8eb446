"""Read adapters, match them with a model, and make what merges them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from conversions.family import Family
from conversions.weights.expression import Tensors
from conversions.weights.lora.adapter_file import read_adapter
from conversions.weights.lora.match import match, unmatched_notice
from conversions.weights.lora.request import AdapterRequest
from conversions.weights.lora.transform import MergeAdapter


@dataclass(frozen=True, kw_only=True)
class OpenedAdapter:
    """An adapter that fits a model.

    Attributes:
        request: The file and its weight.
        file: What its tensors call the file.
        sha256: Hash of the file.
        transforms: What merges it, by the component that it changes.
        notice: What of it is left out; empty where nothing is.
    """

    request: AdapterRequest
    file: str
    sha256: str
    transforms: Mapping[str, MergeAdapter]
    notice: str


def open_all(
    requests: Sequence[AdapterRequest],
    components: Mapping[str, Tensors],
    family: Family,
    *,
    ignore_unmatched: bool,
) -> list[OpenedAdapter]:
    """Open adapters for a model; only tables of tensors are read.

    Args:
        requests: The adapters, in order.
        components: The weights of each component of the model that adapters may change.
        family: What the model is.
        ignore_unmatched: Whether keys that belong to nothing in the model are left out.

    Raises:
        ConversionError: An adapter cannot be read or does not fit; see ``match`` and ``read_adapter``.
    """
    opened = []
    for number, request in enumerate(requests, start=1):
        file = f"lora/{number}-{request.path.name}"
        adapter = read_adapter(request.path, file)
        matched = match(adapter, components, family, ignore_unmatched=ignore_unmatched)
        transforms = {
            component: MergeAdapter(
                order=number,
                name=request.path.name,
                sha256=adapter.sha256,
                weight=request.weight,
                layers=layers,
            )
            for component, layers in matched.layers.items()
            if layers
        }
        opened.append(
            OpenedAdapter(
                request=request,
                file=file,
                sha256=adapter.sha256,
                transforms=transforms,
                notice=unmatched_notice(adapter, matched),
            )
        )
    return opened

"""A checkpoint with adapters merged into its weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from conversions.checkpoint.folder import Checkpoint, component_tensors
from conversions.checkpoint.layered import Layered, Place, all_of
from conversions.checkpoint.storage import Folder
from conversions.weights.lora.adapter_file import read_adapter
from conversions.weights.lora.match import match, unmatched_notice
from conversions.weights.lora.request import AdapterRequest
from conversions.weights.lora.transform import MergeAdapter


@dataclass(frozen=True, kw_only=True)
class AdaptedCheckpoint:
    """A checkpoint with adapters.

    Attributes:
        checkpoint: Its components have the adapters among their transforms.
        notices: What of the adapters was left out.
    """

    checkpoint: Checkpoint
    notices: tuple[str, ...]


def with_adapters(
    checkpoint: Checkpoint, requests: Sequence[AdapterRequest], *, ignore_unmatched: bool = False
) -> AdaptedCheckpoint:
    """Merge adapters into a checkpoint, one after the other; only tables of tensors are read.

    Args:
        checkpoint: Its weights are safetensors.
        requests: The adapters, in order.
        ignore_unmatched: Whether keys that belong to nothing in the model are left out.

    Raises:
        ConversionError: An adapter cannot be read or does not fit; see ``match`` and ``read_adapter``.
    """
    if not requests:
        return AdaptedCheckpoint(checkpoint=checkpoint, notices=())
    names = [adapted.component for adapted in checkpoint.family.adapted]
    tensors = {
        name: component_tensors(checkpoint.storage, checkpoint.components[name])
        for name in names
        if name in checkpoint.components
    }
    places = all_of(checkpoint.storage)
    components = dict(checkpoint.components)
    notices = []
    for number, request in enumerate(requests, start=1):
        file = f"lora/{number}-{request.path.name}"
        adapter = read_adapter(request.path, file)
        matched = match(adapter, tensors, checkpoint.family, ignore_unmatched=ignore_unmatched)
        if notice := unmatched_notice(adapter, matched):
            notices.append(notice)
        places[file] = Place(storage=Folder(request.path.parent), name=request.path.name)
        for component, layers in matched.layers.items():
            if layers:
                transform = MergeAdapter(
                    order=number,
                    name=request.path.name,
                    sha256=adapter.sha256,
                    weight=request.weight,
                    layers=layers,
                )
                before = components[component]
                components[component] = replace(before, transforms=(*before.transforms, transform))
    return AdaptedCheckpoint(
        checkpoint=replace(
            checkpoint, storage=Layered(checkpoint.storage.label, places), components=components
        ),
        notices=tuple(notices),
    )

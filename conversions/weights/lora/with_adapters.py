"""A checkpoint with adapters merged into its weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from conversions.checkpoint.folder import Checkpoint, component_tensors
from conversions.checkpoint.layered import Layered, Place, all_of
from conversions.checkpoint.storage import Folder
from conversions.weights.lora.opened import open_all
from conversions.weights.lora.request import AdapterRequest


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
    opened = open_all(requests, tensors, checkpoint.family, ignore_unmatched=ignore_unmatched)
    for adapter in opened:
        path = adapter.request.path
        places[adapter.file] = Place(storage=Folder(path.parent), name=path.name)
        for component, transform in adapter.transforms.items():
            before = components[component]
            components[component] = replace(before, transforms=(*before.transforms, transform))
    return AdaptedCheckpoint(
        checkpoint=replace(
            checkpoint, storage=Layered(checkpoint.storage.label, places), components=components
        ),
        notices=tuple(adapter.notice for adapter in opened if adapter.notice),
    )

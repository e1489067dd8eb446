"""A component's weights with an adapter merged."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from conversions.weights.expression import Tensors
from conversions.weights.lora.adapter_file import Layer
from conversions.weights.lora.layer import merged


@dataclass(frozen=True, kw_only=True)
class MergeAdapter:
    """Adds an adapter to the weights of a component.

    Attributes:
        order: Its place among the adapters of a model, from 1.
        name: The adapter's file.
        sha256: The file's hash, which identifies the layers.
        weight: What its change is multiplied by.
        layers: The layers by the module that each changes.
    """

    order: int
    name: str
    sha256: str
    weight: float
    layers: Mapping[str, Layer] = field(repr=False)

    def __call__(self, tensors: Tensors) -> Tensors:
        """Return the weights, those that a layer changes with the change added."""
        changed = dict(tensors)
        for module, layer in self.layers.items():
            changed |= merged(layer, changed, module, self.weight)
        return changed


@dataclass(frozen=True, kw_only=True)
class MergedAdapter:
    """An adapter that is merged into a model.

    Attributes:
        name: Its file's name.
        weight: What its change is multiplied by.
        sha256: Hash of its file.
    """

    name: str
    weight: float
    sha256: str


def merged_adapters(transforms: Iterable[object]) -> tuple[MergedAdapter, ...]:
    """Return the adapters among the transforms of a model's components, in order."""
    found = {each.order: each for each in transforms if isinstance(each, MergeAdapter)}
    return tuple(
        MergedAdapter(name=each.name, weight=each.weight, sha256=each.sha256)
        for _, each in sorted(found.items())
    )

"""A component's weights with an adapter merged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from conversions.weights.expression import Tensors
from conversions.weights.lora.adapter_file import Layer
from conversions.weights.lora.layer import merged


@dataclass(frozen=True, kw_only=True)
class MergeAdapter:
    """Adds an adapter to the weights of a component.

    Attributes:
        name: The adapter's file.
        sha256: The file's hash, which identifies the layers.
        weight: What its change is multiplied by.
        layers: The layers by the module that each changes.
    """

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

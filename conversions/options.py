"""Options of a conversion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from conversions.weights.quantize import BITS

if TYPE_CHECKING:
    from conversions.family import Submodel

Precision = Literal["fp16", "fp32", "int8", "int4"]
Target = Literal["directml", "cuda", "cpu"]


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options that change what a package contains.

    Attributes:
        precision: Element type of weights and activations; ``"int8"`` and ``"int4"`` quantise the weights of
            linear layers, and leave the rest of a submodel in float16.
        target: Execution provider that the package is made for.
        safety_checker: Whether to convert the checkpoint's safety checker, if it has one.
        scheduler_class: Class of the scheduler that the package names instead of the checkpoint's own.
        precisions: Precisions of single submodels, by name.
        copy: Whether the package holds copies of all weights, rather than links to the checkpoint's files.
    """

    precision: Precision = "fp16"
    target: Target = "directml"
    safety_checker: bool = True
    scheduler_class: str = ""
    precisions: Mapping[str, Precision] = field(default_factory=dict)
    copy: bool = False

    def precision_of(self, submodel: Submodel) -> Precision:
        """Return the precision of one submodel; one that cannot be quantised is float16 instead."""
        chosen = self.precisions.get(submodel.name, self.precision)
        if chosen in BITS and not submodel.kind.quantizable:
            return "fp16"
        return chosen

    def is_fp16(self, submodel: Submodel) -> bool:
        """Whether a submodel computes in float16, as those with quantised weights do."""
        return self.precision_of(submodel) != "fp32"
